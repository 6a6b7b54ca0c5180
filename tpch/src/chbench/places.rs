//! The three tables that CH-benCHmark adds: 5 regions, 62 nations, 10,000 suppliers.
//!
//! A nation's key is the code of a letter or digit, because that is how a customer's nation is found: by the first
//! character of its state.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream;

use crate::error::Result;
use crate::tpcc::{Client, Connection, Failure, Random};

/// The tables.
const TABLES: &str = include_str!("tables.sql");

/// Suppliers; a stock row belongs to the one with the number `(s_w_id * s_i_id) % 10000`.
const SUPPLIERS: i32 = 10_000;

const REGIONS: [&str; 5] = ["Africa", "America", "Asia", "Europe", "Middle East"];

/// The nations with their regions, in the order of their keys' characters: digits, capital letters, small letters.
const NATIONS: [(&str, i32); 62] = [
    ("Algeria", 0),
    ("Argentina", 1),
    ("Australia", 2),
    ("Austria", 3),
    ("Bahrain", 4),
    ("Belgium", 3),
    ("Bolivia", 1),
    ("Brazil", 1),
    ("Bulgaria", 3),
    ("Cambodia", 2),
    ("Cameroon", 0),
    ("Canada", 1),
    ("Chile", 1),
    ("China", 2),
    ("Colombia", 1),
    ("Croatia", 3),
    ("Cuba", 1),
    ("Cyprus", 3),
    ("Denmark", 3),
    ("Ecuador", 1),
    ("Egypt", 4),
    ("Estonia", 3),
    ("Ethiopia", 0),
    ("Finland", 3),
    ("France", 3),
    ("Germany", 3),
    ("Ghana", 0),
    ("Greece", 3),
    ("Hungary", 3),
    ("Iceland", 3),
    ("India", 2),
    ("Indonesia", 2),
    ("Iran", 4),
    ("Iraq", 4),
    ("Ireland", 3),
    ("Israel", 4),
    ("Italy", 3),
    ("Japan", 2),
    ("Jordan", 4),
    ("Kenya", 0),
    ("Kuwait", 4),
    ("Latvia", 3),
    ("Lebanon", 4),
    ("Malaysia", 2),
    ("Mexico", 1),
    ("Morocco", 0),
    ("Mozambique", 0),
    ("Netherlands", 3),
    ("Nigeria", 0),
    ("Norway", 3),
    ("Oman", 4),
    ("Peru", 1),
    ("Poland", 3),
    ("Portugal", 3),
    ("Romania", 3),
    ("Spain", 3),
    ("Sweden", 3),
    ("Switzerland", 3),
    ("Thailand", 2),
    ("Turkey", 4),
    ("Uruguay", 1),
    ("Vietnam", 2),
];

/// The key of the nation at a place in [`NATIONS`].
fn nation_key(place: usize) -> i32 {
    let characters = (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z');
    characters.map(i32::from).nth(place).unwrap_or_default()
}

/// Creates and fills the tables, unless that was done before.
pub(super) async fn load<C: Client>(client: &C, seed: u64) -> Result<()> {
    let mut connection = client.connect().await?;
    // The heartbeat's row is written last.
    match connection.texts("SELECT count(*) FROM chbench_heartbeat").await {
        Ok(rows) if rows.first().and_then(|row| row.first()?.as_deref()) == Some("1") => return Ok(()),
        Ok(_) => {}
        Err(failure) if failure.sqlstate == "42P01" => {
            connection.begin().await?;
            connection.script(TABLES).await?;
            connection.commit().await?;
        }
        Err(failure) => return Err(failure.into()),
    }
    for (table, batch) in [("region", regions()?), ("nation", nations()?), ("supplier", suppliers(seed)?)] {
        let counted = connection.texts(&format!("SELECT count(*) FROM {table}")).await?;
        if counted.first().and_then(|row| row.first()?.as_deref()) == Some("0") {
            client.load(table, batch.schema(), stream::iter([Ok(batch)]).boxed()).await?;
        }
    }
    connection.script("INSERT INTO chbench_heartbeat VALUES (1, 0);").await?;
    Ok(())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let fields = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), false));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(schema), arrays).map_err(unexpected)
}

fn unexpected(error: ArrowError) -> crate::Error {
    Failure::unexpected(error.to_string()).into()
}

fn texts(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn integers(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn regions() -> Result<RecordBatch> {
    batch(vec![
        ("r_regionkey", integers(0..REGIONS.len() as i32)),
        ("r_name", texts(REGIONS.map(str::to_owned))),
        ("r_comment", texts(REGIONS.map(|name| format!("where {name} is")))),
    ])
}

fn nations() -> Result<RecordBatch> {
    batch(vec![
        ("n_nationkey", integers((0..NATIONS.len()).map(nation_key))),
        ("n_name", texts(NATIONS.map(|(name, _)| name.to_owned()))),
        ("n_regionkey", integers(NATIONS.map(|(_, region)| region))),
        ("n_comment", texts(NATIONS.map(|(name, _)| format!("the people of {name}")))),
    ])
}

fn suppliers(seed: u64) -> Result<RecordBatch> {
    let mut random = Random::of(&[seed, 0xC4]);
    let (mut addresses, mut nations, mut phones, mut balances, mut comments) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SUPPLIERS {
        let mut text = String::new();
        random.letters(&mut text, 10, 40);
        addresses.push(std::mem::take(&mut text));
        nations.push(nation_key(random.between(0, NATIONS.len() as i32 - 1) as usize));
        random.digits(&mut text, 15);
        phones.push(std::mem::take(&mut text));
        balances.push(i128::from(random.between(-99_999, 999_999)));
        random.letters(&mut text, 25, 80);
        // Somebody complains about one in a hundred.
        if random.chance(1) {
            text.push_str(" bad");
        }
        comments.push(text);
    }
    let balances = Decimal128Array::from(balances).with_precision_and_scale(12, 2).map_err(unexpected)?;
    debug_assert_eq!(*arrow::array::Array::data_type(&balances), DataType::Decimal128(12, 2));
    batch(vec![
        ("su_suppkey", integers(0..SUPPLIERS)),
        ("su_name", texts((0..SUPPLIERS).map(|number| format!("Supplier#{number:09}")))),
        ("su_address", texts(addresses)),
        ("su_nationkey", integers(nations)),
        ("su_phone", texts(phones)),
        ("su_acctbal", Arc::new(balances)),
        ("su_comment", texts(comments)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nations_have_the_codes_of_all_letters_and_digits() {
        let keys: Vec<i32> = (0..NATIONS.len()).map(nation_key).collect();
        assert!(keys.is_sorted_by(|left, right| left < right));
        assert_eq!((keys[0], keys[10], keys[61]), (48, 65, 122));
        for wanted in ["Germany", "Cambodia"] {
            assert!(NATIONS.iter().any(|(name, _)| *name == wanted));
        }
    }
}
