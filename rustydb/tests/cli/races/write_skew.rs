//! Doctors on call (Cahill et al. 2008): everybody may go off duty as long as somebody else is on. At SERIALIZABLE nobody
//! goes who is the last, although no two of them write the same row.

use super::{Client, Failure, RETRYABLE, race};

const SHIFTS: u64 = 2;

const SET_UP: &str = "
    CREATE TABLE doctors (shift int, name int, on_call boolean NOT NULL, PRIMARY KEY (shift, name));
    INSERT INTO doctors SELECT s, n, true FROM generate_series(0, 1) a(s), generate_series(0, 3) b(n);";

async fn work(mut client: Client) -> Result<(), Failure> {
    for n in 0.. {
        client.keep_house(n).await?;
        let shift = client.random.below(SHIFTS);
        match toggle(&client, shift).await {
            Ok(()) => client.acknowledged(),
            Err(failure) if failure.is(&RETRYABLE) => {}
            Err(failure) => return Err(failure),
        }
        somebody_is_on_call(&client).await?;
    }
    Ok(())
}

/// This client's doctor goes off duty if another is on, or comes back.
async fn toggle(client: &Client, shift: u64) -> Result<(), Failure> {
    let me = client.number;
    client.run("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    let others = format!("SELECT count(*) FROM doctors WHERE shift = {shift} AND on_call AND name <> {me}");
    let others = client.step(&others).await?.rows[0][0].clone();
    let leaves = others != "0";
    let change =
        format!("UPDATE doctors SET on_call = NOT on_call OR {} WHERE shift = {shift} AND name = {me}", !leaves);
    client.step(&change).await?;
    client.step("COMMIT").await.map(drop)
}

async fn somebody_is_on_call(client: &Client) -> Result<(), Failure> {
    let empty = "SELECT shift FROM doctors GROUP BY shift HAVING NOT bool_or(on_call)";
    assert_eq!(client.run(empty).await?.rows, Vec::<Vec<String>>::new(), "shifts without a doctor");
    Ok(())
}

#[test]
fn write_skew_does_not_happen_at_serializable() {
    race(SET_UP, work, |client| async move { somebody_is_on_call(&client).await });
}
