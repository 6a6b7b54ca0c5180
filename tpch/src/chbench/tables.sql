-- What CH-benCHmark adds to TPC-C: suppliers, and where they and the customers are. A stock row belongs to the supplier
-- (s_w_id * s_i_id) % 10000, a customer to the nation whose key is the code of the first letter of its state.

CREATE TABLE region (
    r_regionkey INTEGER NOT NULL,
    r_name VARCHAR(55) NOT NULL,
    r_comment VARCHAR(152) NOT NULL,
    PRIMARY KEY (r_regionkey)
);

CREATE TABLE nation (
    n_nationkey INTEGER NOT NULL,
    n_name VARCHAR(25) NOT NULL,
    n_regionkey INTEGER NOT NULL,
    n_comment VARCHAR(152) NOT NULL,
    PRIMARY KEY (n_nationkey)
);

CREATE TABLE supplier (
    su_suppkey INTEGER NOT NULL,
    su_name VARCHAR(25) NOT NULL,
    su_address VARCHAR(40) NOT NULL,
    su_nationkey INTEGER NOT NULL,
    su_phone VARCHAR(15) NOT NULL,
    su_acctbal NUMERIC(12, 2) NOT NULL,
    su_comment VARCHAR(101) NOT NULL,
    PRIMARY KEY (su_suppkey)
);

-- When the newest commit that a query sees was made: written all the time, read before each query.
CREATE TABLE chbench_heartbeat (
    id INTEGER NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (id)
);
