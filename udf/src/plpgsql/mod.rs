//! PL/pgSQL.
//!
//! ```text
//!   body ─▶ lexer ─▶ parser ─▶ tree (ast) ─▶ compile ─▶ Code: instructions over numbered variables
//!                                                          │ first run: names, types (frame::LinkedCode)
//!                                                          ▼
//!                                                        run ──▶ Execution (engine)
//! ```
//! The language is PostgreSQL's, as far as it goes: what is taken means the same, and what is not taken is refused by name
//! when the routine is created. `docs/reference/procedures.md` lists both.

mod ast;
mod code;
mod compile;
mod conditions;
mod frame;
mod lexer;
mod parser;
mod raise;
mod run;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use rustydb_engine::Result;
use rustydb_engine::routine::{Datum, Execution, Language, Outcome, Program, Source};

use crate::linked::Linked;
use code::Code;
use frame::LinkedCode;

/// The language.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlPgSql;

impl Language for PlPgSql {
    fn name(&self) -> &'static str {
        "plpgsql"
    }

    fn compile(&self, source: &Source) -> Result<Arc<dyn Program>> {
        let body = parser::parse(&source.body)?;
        let code = compile::compile(source, body)?;
        Ok(Arc::new(Body { source: source.clone(), code, linked: Linked::default() }))
    }
}

/// A compiled body.
struct Body {
    source: Source,
    code: Code,
    linked: Linked<LinkedCode>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("routine", &self.source.signature).finish_non_exhaustive()
    }
}

#[async_trait]
impl Program for Body {
    async fn run(&self, execution: &mut Execution<'_>, arguments: Vec<Datum>) -> Result<Outcome> {
        let mut call = run::Call::new(&self.source, &self.code, &self.linked, execution, arguments)?;
        call.run(execution).await
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rustydb_engine::Position;
    use rustydb_engine::routine::Returns;

    use super::*;

    fn compile(body: &str) -> Result<Arc<dyn Program>> {
        PlPgSql.compile(&Source {
            name: "f".to_owned(),
            signature: "f()".to_owned(),
            is_procedure: false,
            parameters: Vec::new(),
            returns: Returns::Void,
            names_columns: false,
            body: body.to_owned(),
        })
    }

    #[test]
    fn every_statement_is_understood() {
        compile(
            "<<all>> DECLARE a integer := 1; b constant text not null default 'x'; c record; d a%TYPE; e t%ROWTYPE; \
             f numeric(4,2)[]; g alias for a; BEGIN a := 1; f[a] = 2; c.x := 3; IF a > 1 THEN NULL; ELSIF a = 2 THEN \
             NULL; ELSE NULL; END IF; CASE a WHEN 1, 2 THEN NULL; ELSE NULL; END CASE; CASE WHEN a = 1 THEN NULL; END \
             CASE; <<l>> LOOP EXIT l WHEN a > 3; CONTINUE; END LOOP l; WHILE true LOOP EXIT; END LOOP; FOR i IN REVERSE \
             9..1 BY 2 LOOP EXIT all; END LOOP; FOR c IN SELECT 1 LOOP NULL; END LOOP; FOR c IN EXECUTE 'q' USING 1, a \
             LOOP NULL; END LOOP; FOREACH a IN ARRAY f LOOP NULL; END LOOP; PERFORM f(1); SELECT 1, 2 INTO STRICT a, b2 \
             FROM t; EXECUTE 'x' INTO a USING 1; GET DIAGNOSTICS a = ROW_COUNT; RAISE NOTICE '% %%', a; RAISE; ASSERT \
             a = 1, 'm'; CALL p(1); COMMIT; ROLLBACK; INSERT INTO t VALUES (a) RETURNING x INTO a; BEGIN NULL; EXCEPTION \
             WHEN unique_violation OR SQLSTATE '22012' THEN GET STACKED DIAGNOSTICS a = MESSAGE_TEXT; WHEN OTHERS THEN \
             RAISE EXCEPTION USING ERRCODE = 'XX123', MESSAGE = 'm'; END; RETURN; END all"
                .replace("INTO STRICT a, b2", "INTO STRICT a, d")
                .as_str(),
        )
        .unwrap();
    }

    #[test]
    fn errors_are_placed() {
        for (body, state, line, column) in [
            ("BEGIN\n  a := 1;\nEND", "42601", 2, 3),
            ("BEGIN\n  IF 1 THEN\n  END;\nEND", "42601", 3, 6),
            ("BEGIN NULL;\n\n NULL", "42601", 3, 6),
            ("DECLARE a integer; BEGIN\n a := 1 +;\nEND", "42601", 2, 9),
            ("BEGIN EXIT; END", "42601", 1, 7),
            ("DECLARE a integer; a text; BEGIN NULL; END", "42601", 1, 20),
        ] {
            let error = compile(body).unwrap_err();
            assert_eq!(error.sqlstate(), state, "{body}: {error:?}");
            let at = error.position().unwrap_or(Position { line: 0, column: 0 });
            assert_eq!(at.line, line, "{body}: {error:?}");
            assert!(at.column.abs_diff(column) <= 2, "{body}: {error:?}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        const WORDS: [&str; 58] = [
            "begin",
            "end",
            "declare",
            "if",
            "then",
            "elsif",
            "else",
            "case",
            "when",
            "loop",
            "while",
            "for",
            "in",
            "foreach",
            "array",
            "exit",
            "continue",
            "return",
            "next",
            "query",
            "raise",
            "exception",
            "others",
            "sqlstate",
            "select",
            "into",
            "strict",
            "insert",
            "perform",
            "execute",
            "using",
            "get",
            "diagnostics",
            "commit",
            "null",
            "call",
            "a",
            "b",
            "integer",
            "text",
            "record",
            ":=",
            "=",
            ";",
            ";",
            ",",
            "(",
            ")",
            "[",
            "]",
            "..",
            "<<",
            ">>",
            "'x'",
            "1",
            "$1",
            "%",
            "\"é\"",
        ];
        let seed = 0x0009_1e5e;
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..4_000 {
            let mut body = String::from(if round % 2 == 0 { "begin " } else { "declare a integer; begin " });
            for _ in 0..random.random_range(1..40) {
                body.push_str(WORDS[random.random_range(0..WORDS.len())]);
                body.push(if random.random_bool(0.1) { '\n' } else { ' ' });
            }
            if random.random_bool(0.5) {
                body.push_str("; end");
            }
            // Whatever comes of it; cut off anywhere, too.
            let _ = compile(&body);
            let cut = random.random_range(0..body.len());
            if body.is_char_boundary(cut) {
                let _ = compile(&body[..cut]);
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |depth: usize| format!("{}NULL;{}", "BEGIN ".repeat(depth), " END;".repeat(depth));
        assert!(compile(&deep(90)).is_ok());
        assert_eq!(compile(&deep(100_000)).unwrap_err().sqlstate(), "54001");
        let ifs = format!("BEGIN {} NULL; {} END", "IF true THEN ".repeat(5_000), "END IF; ".repeat(5_000));
        assert_eq!(compile(&ifs).unwrap_err().sqlstate(), "54001");
    }
}
