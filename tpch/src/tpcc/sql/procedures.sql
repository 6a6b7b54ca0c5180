-- The five transactions of TPC-C (clause 2) as procedures, in the PL/pgSQL that RustyDB and PostgreSQL 15 share: each is
-- one CALL, which is one transaction. They do what the statements of ../statements.rs do.
--
-- The row that others wait for most comes first (a district's, a warehouse's): whoever waits has read nothing yet, and
-- what it then sees is new.

CREATE OR REPLACE PROCEDURE tpcc_new_order(
    p_w_id INTEGER, p_d_id INTEGER, p_c_id INTEGER, p_entry_d TIMESTAMP,
    p_item_ids INTEGER[], p_supply_w_ids INTEGER[], p_quantities INTEGER[],
    INOUT r_o_id INTEGER, INOUT r_c_last VARCHAR(16), INOUT r_c_credit CHAR(2), INOUT r_total NUMERIC(12, 2))
LANGUAGE plpgsql AS $$
DECLARE
    v_lines INTEGER := array_length(p_item_ids, 1);
    v_all_local INTEGER := 1;
    v_w_tax NUMERIC(4, 4);
    v_d_tax NUMERIC(4, 4);
    v_discount NUMERIC(4, 4);
    v_item_id INTEGER;
    v_supply_w_id INTEGER;
    v_quantity INTEGER;
    v_remote INTEGER;
    v_price NUMERIC(5, 2);
    v_item_name VARCHAR(24);
    v_item_data VARCHAR(50);
    v_stock INTEGER;
    v_stock_data VARCHAR(50);
    v_dist_info CHAR(24);
    v_amount NUMERIC(6, 2);
BEGIN
    UPDATE district SET d_next_o_id = d_next_o_id + 1
        WHERE d_w_id = p_w_id AND d_id = p_d_id
        RETURNING d_next_o_id - 1, d_tax INTO r_o_id, v_d_tax;
    SELECT w_tax INTO v_w_tax FROM warehouse WHERE w_id = p_w_id;
    SELECT c_discount, c_last, c_credit INTO v_discount, r_c_last, r_c_credit
        FROM customer WHERE c_w_id = p_w_id AND c_d_id = p_d_id AND c_id = p_c_id;

    FOR i IN 1..v_lines LOOP
        IF p_supply_w_ids[i] <> p_w_id THEN
            v_all_local := 0;
        END IF;
    END LOOP;
    INSERT INTO orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_carrier_id, o_ol_cnt, o_all_local)
        VALUES (p_w_id, p_d_id, r_o_id, p_c_id, p_entry_d, NULL, v_lines, v_all_local);
    INSERT INTO new_order (no_w_id, no_d_id, no_o_id) VALUES (p_w_id, p_d_id, r_o_id);

    r_total := 0;
    FOR i IN 1..v_lines LOOP
        v_item_id := p_item_ids[i];
        v_supply_w_id := p_supply_w_ids[i];
        v_quantity := p_quantities[i];
        SELECT i_price, i_name, i_data INTO v_price, v_item_name, v_item_data FROM item WHERE i_id = v_item_id;
        IF NOT FOUND THEN
            -- One order in a hundred asks for an item that nobody has; all of it is taken back.
            RAISE EXCEPTION 'item % does not exist', v_item_id USING ERRCODE = 'P0002';
        END IF;
        v_remote := 0;
        IF v_supply_w_id <> p_w_id THEN
            v_remote := 1;
        END IF;
        UPDATE stock SET
                s_quantity = CASE WHEN s_quantity >= v_quantity + 10 THEN s_quantity - v_quantity
                             ELSE s_quantity - v_quantity + 91 END,
                s_ytd = s_ytd + v_quantity,
                s_order_cnt = s_order_cnt + 1,
                s_remote_cnt = s_remote_cnt + v_remote
            WHERE s_w_id = v_supply_w_id AND s_i_id = v_item_id
            RETURNING s_quantity, s_data,
                CASE p_d_id WHEN 1 THEN s_dist_01 WHEN 2 THEN s_dist_02 WHEN 3 THEN s_dist_03 WHEN 4 THEN s_dist_04
                            WHEN 5 THEN s_dist_05 WHEN 6 THEN s_dist_06 WHEN 7 THEN s_dist_07 WHEN 8 THEN s_dist_08
                            WHEN 9 THEN s_dist_09 ELSE s_dist_10 END
            INTO v_stock, v_stock_data, v_dist_info;
        v_amount := v_price * v_quantity;
        r_total := r_total + v_amount;
        INSERT INTO order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_delivery_d,
                                ol_quantity, ol_amount, ol_dist_info)
            VALUES (p_w_id, p_d_id, r_o_id, i, v_item_id, v_supply_w_id, NULL, v_quantity, v_amount, v_dist_info);
    END LOOP;
    r_total := round(r_total * (1 - v_discount) * (1 + v_w_tax + v_d_tax), 2);
END;
$$;

-- The customer is given by number, or by last name: then it is the one in the middle, by first name.
CREATE OR REPLACE PROCEDURE tpcc_payment(
    p_w_id INTEGER, p_d_id INTEGER, p_c_w_id INTEGER, p_c_d_id INTEGER, p_c_id INTEGER, p_c_last VARCHAR(16),
    p_amount NUMERIC(6, 2), p_date TIMESTAMP,
    INOUT r_c_id INTEGER, INOUT r_c_balance NUMERIC(12, 2), INOUT r_c_data VARCHAR(500))
LANGUAGE plpgsql AS $$
DECLARE
    v_w_name VARCHAR(10);
    v_w_street_1 VARCHAR(20);
    v_w_street_2 VARCHAR(20);
    v_w_city VARCHAR(20);
    v_w_state CHAR(2);
    v_w_zip CHAR(9);
    v_d_name VARCHAR(10);
    v_d_street_1 VARCHAR(20);
    v_d_street_2 VARCHAR(20);
    v_d_city VARCHAR(20);
    v_d_state CHAR(2);
    v_d_zip CHAR(9);
    v_found INTEGER;
    v_before INTEGER;
    v_first VARCHAR(16);
    v_last VARCHAR(16);
    v_credit CHAR(2);
    v_credit_lim NUMERIC(12, 2);
    v_discount NUMERIC(4, 4);
    v_note VARCHAR(500);
BEGIN
    UPDATE warehouse SET w_ytd = w_ytd + p_amount WHERE w_id = p_w_id
        RETURNING w_name, w_street_1, w_street_2, w_city, w_state, w_zip
        INTO v_w_name, v_w_street_1, v_w_street_2, v_w_city, v_w_state, v_w_zip;
    UPDATE district SET d_ytd = d_ytd + p_amount WHERE d_w_id = p_w_id AND d_id = p_d_id
        RETURNING d_name, d_street_1, d_street_2, d_city, d_state, d_zip
        INTO v_d_name, v_d_street_1, v_d_street_2, v_d_city, v_d_state, v_d_zip;

    r_c_id := p_c_id;
    IF p_c_last IS NOT NULL THEN
        SELECT count(*) INTO v_found FROM customer
            WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_last = p_c_last;
        v_before := (v_found - 1) / 2;
        SELECT c_id INTO r_c_id FROM customer
            WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_last = p_c_last
            ORDER BY c_first LIMIT 1 OFFSET v_before;
    END IF;

    UPDATE customer SET
            c_balance = c_balance - p_amount,
            c_ytd_payment = c_ytd_payment + p_amount,
            c_payment_cnt = c_payment_cnt + 1
        WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_id = r_c_id
        RETURNING c_first, c_last, c_credit, c_credit_lim, c_discount, c_balance
        INTO v_first, v_last, v_credit, v_credit_lim, v_discount, r_c_balance;
    r_c_data := NULL;
    IF v_credit = 'BC' THEN
        v_note := r_c_id || ' ' || p_c_d_id || ' ' || p_c_w_id || ' ' || p_d_id || ' ' || p_w_id || ' ' || p_amount || '|';
        UPDATE customer SET c_data = substr(v_note || c_data, 1, 500)
            WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_id = r_c_id
            RETURNING substr(c_data, 1, 200) INTO r_c_data;
    END IF;
    INSERT INTO history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data)
        VALUES (r_c_id, p_c_d_id, p_c_w_id, p_d_id, p_w_id, p_date, p_amount, v_w_name || '    ' || v_d_name);
END;
$$;

-- The customer's last order. Its lines are read one by one; their number and sum are returned.
CREATE OR REPLACE PROCEDURE tpcc_order_status(
    p_w_id INTEGER, p_d_id INTEGER, p_c_id INTEGER, p_c_last VARCHAR(16),
    INOUT r_c_id INTEGER, INOUT r_c_balance NUMERIC(12, 2), INOUT r_o_id INTEGER, INOUT r_entry_d TIMESTAMP,
    INOUT r_carrier_id INTEGER, INOUT r_lines INTEGER, INOUT r_amount NUMERIC(12, 2))
LANGUAGE plpgsql AS $$
DECLARE
    v_found INTEGER;
    v_before INTEGER;
    v_first VARCHAR(16);
    v_middle CHAR(2);
    v_last VARCHAR(16);
    v_line RECORD;
BEGIN
    r_c_id := p_c_id;
    IF p_c_last IS NOT NULL THEN
        SELECT count(*) INTO v_found FROM customer
            WHERE c_w_id = p_w_id AND c_d_id = p_d_id AND c_last = p_c_last;
        v_before := (v_found - 1) / 2;
        SELECT c_id INTO r_c_id FROM customer
            WHERE c_w_id = p_w_id AND c_d_id = p_d_id AND c_last = p_c_last
            ORDER BY c_first LIMIT 1 OFFSET v_before;
    END IF;
    SELECT c_first, c_middle, c_last, c_balance INTO v_first, v_middle, v_last, r_c_balance
        FROM customer WHERE c_w_id = p_w_id AND c_d_id = p_d_id AND c_id = r_c_id;
    SELECT o_id, o_entry_d, o_carrier_id INTO r_o_id, r_entry_d, r_carrier_id
        FROM orders WHERE o_w_id = p_w_id AND o_d_id = p_d_id AND o_c_id = r_c_id
        ORDER BY o_id DESC LIMIT 1;
    r_lines := 0;
    r_amount := 0;
    FOR v_line IN
        SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d
            FROM order_line WHERE ol_w_id = p_w_id AND ol_d_id = p_d_id AND ol_o_id = r_o_id
    LOOP
        r_lines := r_lines + 1;
        r_amount := r_amount + v_line.ol_amount;
    END LOOP;
END;
$$;

-- The oldest order of each district that is still new; a district without one is left out.
CREATE OR REPLACE PROCEDURE tpcc_delivery(
    p_w_id INTEGER, p_carrier_id INTEGER, p_date TIMESTAMP, INOUT r_delivered INTEGER)
LANGUAGE plpgsql AS $$
DECLARE
    v_o_id INTEGER;
    v_c_id INTEGER;
    v_amount NUMERIC(12, 2);
BEGIN
    r_delivered := 0;
    FOR v_d_id IN 1..10 LOOP
        LOOP
            SELECT no_o_id INTO v_o_id FROM new_order
                WHERE no_w_id = p_w_id AND no_d_id = v_d_id ORDER BY no_o_id LIMIT 1;
            EXIT WHEN NOT FOUND;
            -- Another delivery may have been first: at READ COMMITTED nothing is left to delete then.
            DELETE FROM new_order WHERE no_w_id = p_w_id AND no_d_id = v_d_id AND no_o_id = v_o_id;
            EXIT WHEN FOUND;
        END LOOP;
        CONTINUE WHEN v_o_id IS NULL;
        UPDATE orders SET o_carrier_id = p_carrier_id
            WHERE o_w_id = p_w_id AND o_d_id = v_d_id AND o_id = v_o_id
            RETURNING o_c_id INTO v_c_id;
        SELECT sum(ol_amount) INTO v_amount FROM order_line
            WHERE ol_w_id = p_w_id AND ol_d_id = v_d_id AND ol_o_id = v_o_id;
        UPDATE order_line SET ol_delivery_d = p_date
            WHERE ol_w_id = p_w_id AND ol_d_id = v_d_id AND ol_o_id = v_o_id;
        UPDATE customer SET c_balance = c_balance + v_amount, c_delivery_cnt = c_delivery_cnt + 1
            WHERE c_w_id = p_w_id AND c_d_id = v_d_id AND c_id = v_c_id;
        r_delivered := r_delivered + 1;
    END LOOP;
END;
$$;

-- How many items of the district's last twenty orders are short in stock.
CREATE OR REPLACE PROCEDURE tpcc_stock_level(
    p_w_id INTEGER, p_d_id INTEGER, p_threshold INTEGER, INOUT r_low INTEGER)
LANGUAGE plpgsql AS $$
DECLARE
    v_next_o_id INTEGER;
    v_first_o_id INTEGER;
BEGIN
    SELECT d_next_o_id INTO v_next_o_id FROM district WHERE d_w_id = p_w_id AND d_id = p_d_id;
    v_first_o_id := v_next_o_id - 20;
    SELECT count(DISTINCT s_i_id) INTO r_low
        FROM order_line JOIN stock ON s_i_id = ol_i_id
        WHERE ol_w_id = p_w_id AND ol_d_id = p_d_id AND ol_o_id >= v_first_o_id AND ol_o_id < v_next_o_id
          AND s_w_id = p_w_id AND s_quantity < p_threshold;
END;
$$;
