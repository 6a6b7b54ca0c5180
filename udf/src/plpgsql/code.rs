//! Compiled bodies: a flat list of instructions over numbered variables.
//!
//! ```text
//!   FOR i IN 1..n LOOP            0  for-integer loop 0, from 1 to n; none: 4
//!     EXIT WHEN i > 5;            1  unless i > 5: 3
//!   END LOOP;                     2  end loop 0, jump 5       (EXIT undoes what it leaves)
//!                                 3  next of loop 0: 1
//!                                 4  end loop 0
//! ```
//! Loops, blocks with handlers and handlers nest; what an EXIT leaves is known when it is compiled, so that running needs
//! no stack of its own but the open blocks'.

use rustydb_engine::routine::{SqlExpression, SqlStatement, SqlType};

use super::ast::{Item, Level, RaiseOption};
use super::parser::Conflict;
use super::raise::Piece;

/// A compiled body.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) instructions: Vec<Instruction>,
    /// For each instruction: its line in the body, and what kind of statement it belongs to.
    pub(super) places: Vec<(u64, &'static str)>,
    pub(super) expressions: Vec<(SqlExpression, usize)>,
    pub(super) statements: Vec<(SqlStatement, usize)>,
    pub(super) variables: Vec<Variable>,
    pub(super) scopes: Vec<Scope>,
    pub(super) conflict: Conflict,
    pub(super) loops: usize,
    /// The variables of the inputs, in order.
    pub(super) inputs: Vec<usize>,
    /// The variables of OUT parameters, or of the columns of RETURNS TABLE.
    pub(super) outputs: Vec<usize>,
    /// All parameters by number.
    pub(super) numbered: Vec<usize>,
}

/// `FOUND`, the first variable of every body.
pub(super) const FOUND: usize = 0;

#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) declared: Declared,
    pub(super) not_null: bool,
    pub(super) constant: bool,
}

/// What the type of a variable follows from.
#[derive(Debug, Clone)]
pub(super) enum Declared {
    Known(SqlType),
    Named(String),
    OfVariable(usize),
    OfColumn(Vec<String>),
    RowOf(Vec<String>),
    Record,
    /// Of whatever type it is given: what a CASE compares.
    Dynamic,
}

/// Names in sight of each other.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) parent: Option<usize>,
    pub(super) label: Option<String>,
    pub(super) names: Vec<(String, usize)>,
}

/// The number of an expression or a statement.
pub(super) type Number = usize;

#[derive(Debug)]
pub(super) enum Instruction {
    /// A variable gets its default, or NULL.
    Initialise {
        variable: usize,
        default: Option<Number>,
    },
    Assign {
        target: Place,
        value: Number,
    },
    Jump(usize),
    /// Jumps backwards, where others may run.
    Repeat(usize),
    JumpUnless {
        condition: Number,
        to: usize,
    },
    /// Begins an integer loop; jumps if it has no turn.
    ForInteger {
        number: usize,
        variable: usize,
        bounds: Box<IntegerBounds>,
        exit: usize,
    },
    /// Begins a loop over rows.
    ForRows {
        number: usize,
        query: Query,
    },
    ForArray {
        number: usize,
        array: Number,
    },
    /// Takes the next turn of a loop: assigns and jumps to `body`, or goes on behind it.
    Next {
        number: usize,
        targets: Vec<Place>,
        body: usize,
    },
    /// A loop is left. `sets_found`: FOUND tells whether it had a turn.
    EndLoop {
        number: usize,
        sets_found: bool,
    },
    Run {
        statement: Number,
        into: Option<Into>,
        is_call: bool,
    },
    Perform(Number),
    Execute {
        command: Number,
        using: Vec<Number>,
        into: Option<Into>,
    },
    Return(Option<Number>),
    ReturnNext(Option<Number>),
    ReturnQuery(Query),
    Raise(Box<RaiseCode>),
    /// The error that is being handled, again.
    RaiseAgain,
    Assert {
        condition: Number,
        message: Option<Number>,
    },
    Diagnose {
        stacked: bool,
        items: Vec<(Place, Item)>,
    },
    BeginBlock(Vec<HandlerCode>),
    EndBlock,
    /// A handler is left.
    EndHandler,
    NoCase,
    Commit,
    Rollback,
    /// The end of the body.
    End,
}

#[derive(Debug)]
pub(super) struct IntegerBounds {
    pub(super) reverse: bool,
    pub(super) from: Number,
    pub(super) to: Number,
    pub(super) by: Option<Number>,
}

/// What is assigned to.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) variable: usize,
    pub(super) field: Option<String>,
    pub(super) subscript: Option<Number>,
}

#[derive(Debug)]
pub(super) struct Into {
    pub(super) strict: bool,
    pub(super) targets: Vec<Place>,
}

#[derive(Debug)]
pub(super) enum Query {
    Static(Number),
    Dynamic { command: Number, using: Vec<Number> },
}

#[derive(Debug)]
pub(super) struct HandlerCode {
    /// SQLSTATEs; `None` is OTHERS.
    pub(super) conditions: Vec<Option<String>>,
    pub(super) start: usize,
    /// The variables SQLSTATE and SQLERRM.
    pub(super) state: usize,
    pub(super) message: usize,
}

#[derive(Debug)]
pub(super) struct RaiseCode {
    pub(super) level: Level,
    pub(super) state: Option<String>,
    pub(super) condition: Option<String>,
    pub(super) format: Option<Vec<Piece>>,
    pub(super) arguments: Vec<Number>,
    pub(super) options: Vec<(RaiseOption, Number)>,
}
