-- Everything a data directory can hold: types, keys, defaults, constraints, indexes, views, sequences; rows in segments
-- with and without deletes, rows that only the log has, and a table without a key.
CREATE TABLE item (
    id BIGINT PRIMARY KEY,
    code INTEGER UNIQUE,
    name TEXT NOT NULL DEFAULT 'unnamed',
    price DECIMAL(12, 2) CHECK (price >= 0),
    weight DOUBLE PRECISION,
    day DATE,
    at TIMESTAMP,
    good BOOLEAN,
    raw BYTEA
);
CREATE TABLE part (item BIGINT REFERENCES item (id), number INTEGER, note TEXT, PRIMARY KEY (item, number));
CREATE TABLE journal (line TEXT);
CREATE INDEX item_name ON item (name, price);
CREATE SEQUENCE tickets START 100;
CREATE VIEW dear AS SELECT id, name FROM item WHERE price > 10;
INSERT INTO item
    SELECT i, i * 10, 'item ' || i, i / 4.0, i * 0.5, DATE '2026-01-01', TIMESTAMP '2026-01-01 12:00:00', i % 2 = 0, NULL
    FROM generate_series(1, 200) AS s(i);
INSERT INTO part SELECT i, n, NULL FROM generate_series(1, 50) AS s(i), generate_series(1, 3) AS t(n);
INSERT INTO journal VALUES ('first');
CHECKPOINT;
DELETE FROM part WHERE item % 2 = 0;
UPDATE item SET price = 99.99, name = 'changed' WHERE id IN (3, 150);
CHECKPOINT;
INSERT INTO item (id, code, price) VALUES (1000, NULL, 0.00), (1001, NULL, NULL);
DELETE FROM item WHERE id = 8;
INSERT INTO journal VALUES ('second'), (NULL);
SELECT nextval('tickets'), nextval('tickets');
