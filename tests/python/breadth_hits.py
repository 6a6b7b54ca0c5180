"""Page views: one wide table, skewed as such tables are, and 43 queries over it in the shapes of ClickBench."""

# Every column is made from the row's number by multiplications modulo primes: the same on each run. `skewed` values come
# from a product of two uniform ones, so that low numbers are frequent.
COLUMNS = {
    "watch_id": "CAST(i * 7919 + 13 AS BIGINT)",
    "counter_id": "CAST((i * 7907 % 1009) * (i * 104729 % 997) // 2000 AS INTEGER)",
    "event_date": "DATE '2013-07-01' + CAST(i * 37 % 31 AS INTEGER)",
    "event_time": "TIMESTAMP '2013-07-01 00:00:00' + INTERVAL 1 DAY * (i * 37 % 31) + INTERVAL 1 SECOND * (i * 6007 % 86399)",
    "user_id": "CAST((i * 6151 % 307) * (i * 193 % 151) * 1000003 AS BIGINT)",
    "region_id": "CAST((i * 389 % 769) * (i * 97 % 53) // 90 AS INTEGER)",
    "os": "CAST(i * 17 % 44 AS SMALLINT)",
    "user_agent": "CAST((i * 23 % 71) * (i * 29 % 7) // 6 AS SMALLINT)",
    "client_ip": "CAST((i * 24593 % 12289) * 331 - 2000000 AS INTEGER)",
    "url": "CASE WHEN i % 13 = 0 THEN '' ELSE 'http://site' || (i * 53 % 211) || CASE WHEN i % 17 = 0 THEN '.google.ru/' ELSE '.example.ru/' END || (i * 3079 % 6151) END",
    "referer": "CASE i % 5 WHEN 0 THEN '' WHEN 1 THEN 'https://www.search' || (i * 19 % 97) || '.com/q/' || (i % 3001) ELSE 'http://blog' || (i * 41 % 193) || '.net/page' || (i % 11) END",
    "title": "CASE WHEN i % 29 = 0 THEN 'Google Mail – ' || (i % 101) WHEN i % 7 = 0 THEN '' ELSE 'Страница ' || (i * 37 % 769) END",
    "is_refresh": "CAST(i * 11 % 9 = 0 AS SMALLINT)",
    "resolution_width": "CAST([0, 1024, 1280, 1366, 1440, 1920, 2560][1 + i * 13 % 7] AS SMALLINT)",
    "mobile_phone": "CAST(CASE WHEN i % 11 = 0 THEN i % 90 ELSE 0 END AS SMALLINT)",
    "mobile_phone_model": "CASE WHEN i % 11 = 0 THEN 'model ' || (i * 43 % 59) ELSE '' END",
    "search_engine_id": "CAST(CASE WHEN i % 6 = 0 THEN i % 40 ELSE 0 END AS SMALLINT)",
    "search_phrase": "CASE WHEN i % 6 = 0 THEN 'phrase ' || ((i * 61 % 389) * (i * 67 % 101) // 30) ELSE '' END",
    "adv_engine_id": "CAST(CASE WHEN i % 37 = 0 THEN i % 19 ELSE 0 END AS SMALLINT)",
    "traffic_source_id": "CAST(i * 7 % 11 - 1 AS SMALLINT)",
    "dont_count_hits": "CAST(i % 3 = 0 AS SMALLINT)",
    "is_link": "CAST(i % 19 = 0 AS SMALLINT)",
    "is_download": "CAST(i % 23 = 0 AS SMALLINT)",
    "url_hash": "CAST(i * 3079 % 6151 * 2862933555777 AS BIGINT)",
    "referer_hash": "CAST(i * 41 % 193 * 3202034522624 AS BIGINT)",
    "window_width": "CAST(i * 71 % 1931 AS SMALLINT)",
    "window_height": "CAST(i * 73 % 1087 AS SMALLINT)",
}


def create(count):
    columns = ", ".join(f"{expression} AS {name}" for name, expression in COLUMNS.items())
    return f"CREATE TABLE hits AS SELECT {columns} FROM range({count}) AS r(i)"


COUNTED = "counter_id = 62 AND event_date BETWEEN DATE '2013-07-01' AND DATE '2013-07-31'"

QUERIES = [
    # Whole-table figures.
    "SELECT count(*) FROM hits",
    "SELECT count(*) FROM hits WHERE adv_engine_id <> 0",
    "SELECT sum(adv_engine_id), count(*), avg(resolution_width) FROM hits",
    "SELECT avg(user_id) FROM hits",
    "SELECT count(DISTINCT user_id) FROM hits",
    "SELECT count(DISTINCT search_phrase) FROM hits",
    "SELECT min(event_date), max(event_date) FROM hits",
    # Groups.
    "SELECT adv_engine_id, count(*) FROM hits WHERE adv_engine_id <> 0 GROUP BY adv_engine_id ORDER BY count(*) DESC",
    "SELECT region_id, count(DISTINCT user_id) AS users FROM hits GROUP BY region_id ORDER BY users DESC LIMIT 10",
    "SELECT region_id, sum(adv_engine_id), count(*) AS n, avg(resolution_width), count(DISTINCT user_id) FROM hits"
    " GROUP BY region_id ORDER BY n DESC LIMIT 10",
    "SELECT mobile_phone_model, count(DISTINCT user_id) AS users FROM hits WHERE mobile_phone_model <> ''"
    " GROUP BY mobile_phone_model ORDER BY users DESC LIMIT 10",
    "SELECT mobile_phone, mobile_phone_model, count(DISTINCT user_id) AS users FROM hits WHERE mobile_phone_model <> ''"
    " GROUP BY mobile_phone, mobile_phone_model ORDER BY users DESC LIMIT 10",
    "SELECT search_phrase, count(*) AS n FROM hits WHERE search_phrase <> '' GROUP BY search_phrase ORDER BY n DESC LIMIT 10",
    "SELECT search_phrase, count(DISTINCT user_id) AS users FROM hits WHERE search_phrase <> '' GROUP BY search_phrase"
    " ORDER BY users DESC LIMIT 10",
    "SELECT search_engine_id, search_phrase, count(*) AS n FROM hits WHERE search_phrase <> ''"
    " GROUP BY search_engine_id, search_phrase ORDER BY n DESC LIMIT 10",
    "SELECT user_id, count(*) FROM hits GROUP BY user_id ORDER BY count(*) DESC LIMIT 10",
    "SELECT user_id, search_phrase, count(*) FROM hits GROUP BY user_id, search_phrase ORDER BY count(*) DESC LIMIT 10",
    "SELECT user_id, search_phrase, count(*) FROM hits GROUP BY user_id, search_phrase LIMIT 10",
    "SELECT user_id, extract(minute FROM event_time) AS m, search_phrase, count(*) FROM hits"
    " GROUP BY user_id, m, search_phrase ORDER BY count(*) DESC LIMIT 10",
    # Look-ups and text search.
    "SELECT user_id FROM hits WHERE user_id = 210000630",
    "SELECT count(*) FROM hits WHERE url LIKE '%google%'",
    "SELECT search_phrase, min(url), count(*) AS n FROM hits WHERE url LIKE '%google%' AND search_phrase <> ''"
    " GROUP BY search_phrase ORDER BY n DESC LIMIT 10",
    "SELECT search_phrase, min(url), min(title), count(*) AS n, count(DISTINCT user_id) FROM hits"
    " WHERE title LIKE '%Google%' AND url NOT LIKE '%.google.%' AND search_phrase <> ''"
    " GROUP BY search_phrase ORDER BY n DESC LIMIT 10",
    "SELECT * FROM hits WHERE url LIKE '%google%' ORDER BY event_time LIMIT 10",
    # Top-k.
    "SELECT search_phrase FROM hits WHERE search_phrase <> '' ORDER BY event_time LIMIT 10",
    "SELECT search_phrase FROM hits WHERE search_phrase <> '' ORDER BY search_phrase LIMIT 10",
    "SELECT search_phrase FROM hits WHERE search_phrase <> '' ORDER BY event_time, search_phrase LIMIT 10",
    "SELECT counter_id, avg(length(url)) AS l, count(*) AS n FROM hits WHERE url <> '' GROUP BY counter_id"
    " HAVING count(*) > 30 ORDER BY l DESC LIMIT 25",
    r"SELECT regexp_replace(referer, '^https?://(?:www\.)?([^/]+)/.*$', '\1') AS k, avg(length(referer)) AS l,"
    " count(*) AS n, min(referer) FROM hits WHERE referer <> '' GROUP BY k HAVING count(*) > 20 ORDER BY l DESC LIMIT 25",
    "SELECT " + ", ".join(f"sum(resolution_width + {i})" for i in range(90)) + " FROM hits",
    "SELECT search_engine_id, client_ip, count(*) AS n, sum(is_refresh), avg(resolution_width) FROM hits"
    " WHERE search_phrase <> '' GROUP BY search_engine_id, client_ip ORDER BY n DESC LIMIT 10",
    "SELECT watch_id, client_ip, count(*) AS n, sum(is_refresh), avg(resolution_width) FROM hits"
    " WHERE search_phrase <> '' GROUP BY watch_id, client_ip ORDER BY n DESC LIMIT 10",
    "SELECT watch_id, client_ip, count(*) AS n, sum(is_refresh), avg(resolution_width) FROM hits"
    " GROUP BY watch_id, client_ip ORDER BY n DESC LIMIT 10",
    "SELECT url, count(*) AS n FROM hits GROUP BY url ORDER BY n DESC LIMIT 10",
    "SELECT 1 AS one, url, count(*) AS n FROM hits GROUP BY one, url ORDER BY n DESC LIMIT 10",
    "SELECT client_ip, client_ip - 1, client_ip - 2, client_ip - 3, count(*) AS n FROM hits"
    " GROUP BY client_ip, client_ip - 1, client_ip - 2, client_ip - 3 ORDER BY n DESC LIMIT 10",
    # One site's reports.
    f"SELECT url, count(*) AS views FROM hits WHERE {COUNTED} AND dont_count_hits = 0 AND is_refresh = 0 AND url <> ''"
    " GROUP BY url ORDER BY views DESC LIMIT 10",
    f"SELECT title, count(*) AS views FROM hits WHERE {COUNTED} AND dont_count_hits = 0 AND is_refresh = 0 AND title <> ''"
    " GROUP BY title ORDER BY views DESC LIMIT 10",
    f"SELECT url, count(*) AS views FROM hits WHERE {COUNTED} AND is_refresh = 0 AND is_link <> 0 AND is_download = 0"
    " GROUP BY url ORDER BY views DESC LIMIT 10 OFFSET 2",
    "SELECT traffic_source_id, search_engine_id, adv_engine_id, CASE WHEN search_engine_id = 0 AND adv_engine_id = 0"
    f" THEN referer ELSE '' END AS src, url AS dst, count(*) AS views FROM hits WHERE {COUNTED} AND is_refresh = 0"
    " GROUP BY traffic_source_id, search_engine_id, adv_engine_id, src, dst ORDER BY views DESC LIMIT 10 OFFSET 20",
    f"SELECT url_hash, event_date, count(*) AS views FROM hits WHERE {COUNTED} AND is_refresh = 0"
    " AND traffic_source_id IN (-1, 6) AND referer_hash > 0 GROUP BY url_hash, event_date ORDER BY views DESC LIMIT 10",
    f"SELECT window_width, window_height, count(*) AS views FROM hits WHERE {COUNTED} AND is_refresh = 0"
    " AND dont_count_hits = 0 GROUP BY window_width, window_height ORDER BY views DESC LIMIT 10 OFFSET 5",
    f"SELECT date_trunc('minute', event_time) AS m, count(*) AS views FROM hits WHERE {COUNTED} AND is_refresh = 0"
    " AND dont_count_hits = 0 GROUP BY m ORDER BY m LIMIT 10 OFFSET 3",
]
