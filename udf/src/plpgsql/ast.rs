//! The syntax tree of a PL/pgSQL body. SQL in it is text ([`Fragment`]) that the engine parses.

/// A piece of SQL: an expression, a query or a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) text: String,
    /// Where it begins in the body.
    pub(super) offset: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) label: Option<String>,
    pub(super) declarations: Vec<Declaration>,
    pub(super) body: Vec<Statement>,
    pub(super) handlers: Vec<Handler>,
}

#[derive(Debug, Clone)]
pub(super) struct Declaration {
    pub(super) name: String,
    pub(super) offset: usize,
    pub(super) kind: DeclarationKind,
}

#[derive(Debug, Clone)]
pub(super) enum DeclarationKind {
    Variable {
        constant: bool,
        type_name: TypeText,
        not_null: bool,
        default: Option<Fragment>,
    },
    /// `name ALIAS FOR other`
    Alias(String),
}

/// A type as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TypeText {
    /// `integer`, `varchar(10)[]`, the name of a table.
    Named(Fragment),
    /// `name%TYPE`: of a variable, or of a column.
    Of(Vec<String>),
    /// `table%ROWTYPE`
    RowOf(Vec<String>),
    /// `RECORD`
    Record,
}

#[derive(Debug, Clone)]
pub(super) struct Handler {
    pub(super) conditions: Vec<Condition>,
    pub(super) body: Vec<Statement>,
}

/// What an exception handler is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Others,
    /// An SQLSTATE; `XX000` and its like stand for their class.
    State(String),
}

#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) offset: usize,
    pub(super) kind: StatementKind,
}

/// What is assigned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `variable`, `record.field`, `label.variable`, `label.record.field`.
    pub(super) path: Vec<String>,
    /// `array[subscript]`
    pub(super) subscript: Option<Fragment>,
    pub(super) offset: usize,
}

/// INTO.
#[derive(Debug, Clone)]
pub(super) struct Into {
    pub(super) strict: bool,
    pub(super) targets: Vec<Target>,
}

/// A query that is written down, or made while the routine runs.
#[derive(Debug, Clone)]
pub(super) enum QueryText {
    Static(Fragment),
    Dynamic { command: Fragment, using: Vec<Fragment> },
}

#[derive(Debug, Clone)]
pub(super) enum StatementKind {
    Block(Block),
    Assign {
        target: Target,
        value: Fragment,
    },
    If {
        branches: Vec<(Fragment, Vec<Statement>)>,
        otherwise: Vec<Statement>,
    },
    Case {
        operand: Option<Fragment>,
        branches: Vec<(Vec<Fragment>, Vec<Statement>)>,
        otherwise: Option<Vec<Statement>>,
    },
    Loop {
        label: Option<String>,
        body: Vec<Statement>,
    },
    While {
        label: Option<String>,
        condition: Fragment,
        body: Vec<Statement>,
    },
    ForInteger(Box<ForInteger>),
    ForQuery {
        label: Option<String>,
        targets: Vec<Target>,
        query: QueryText,
        body: Vec<Statement>,
    },
    Foreach {
        label: Option<String>,
        target: Target,
        array: Fragment,
        body: Vec<Statement>,
    },
    Exit {
        again: bool,
        label: Option<String>,
        condition: Option<Fragment>,
    },
    Return(Option<Fragment>),
    ReturnNext(Option<Fragment>),
    ReturnQuery(QueryText),
    Raise(Raise),
    Assert {
        condition: Fragment,
        message: Option<Fragment>,
    },
    Sql {
        statement: Fragment,
        into: Option<Into>,
    },
    Call {
        statement: Fragment,
    },
    Perform(Fragment),
    Execute {
        command: Fragment,
        into: Option<Into>,
        using: Vec<Fragment>,
    },
    GetDiagnostics {
        stacked: bool,
        items: Vec<(Target, Item)>,
    },
    Commit,
    Rollback,
    Null,
}

#[derive(Debug, Clone)]
pub(super) struct ForInteger {
    pub(super) label: Option<String>,
    pub(super) variable: String,
    pub(super) reverse: bool,
    pub(super) from: Fragment,
    pub(super) to: Fragment,
    pub(super) by: Option<Fragment>,
    pub(super) body: Vec<Statement>,
}

/// What GET DIAGNOSTICS can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    RowCount,
    Context,
    ReturnedSqlstate,
    MessageText,
    ExceptionDetail,
    ExceptionHint,
    ExceptionContext,
    /// Of what the engine's errors do not tell: the name of a column, a constraint, a table.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Log,
    Info,
    Notice,
    Warning,
    Exception,
}

#[derive(Debug, Clone)]
pub(super) struct Raise {
    pub(super) level: Level,
    /// `RAISE` alone: the error that is being handled, again.
    pub(super) again: bool,
    pub(super) state: Option<String>,
    /// `RAISE unique_violation`: the message then is the condition's name.
    pub(super) condition: Option<String>,
    pub(super) format: Option<String>,
    pub(super) arguments: Vec<Fragment>,
    pub(super) options: Vec<(RaiseOption, Fragment)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RaiseOption {
    Message,
    Detail,
    Hint,
    Errcode,
    /// COLUMN, CONSTRAINT, DATATYPE, TABLE, SCHEMA: evaluated, and not shown.
    Other,
}
