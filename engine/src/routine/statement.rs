//! Statements of routines, their names looked up, and the rows they give.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, SelectItem, Statement,
    TableAlias, TableFactor, TableFunctionArgs, Visit, VisitMut, VisitorMut,
};
use futures::StreamExt;

use super::definition::{Routine, schema_of};
use super::expression::{Argument, CompiledExpression, Compiler, input_of, quoted};
use super::fragment::{SqlStatement, rowless_items};
use super::language::Returns;
use super::names::{InputTypes, Variables, resolve_variables};
use super::registry::Routines;
use super::types::{Shape, SqlType};
use crate::error::sqlstate;
use crate::row_path::{self, Datum, Program};
use crate::sql::context::StatementContext;
use crate::sql::grammar::lock::LockingQuery;
use crate::sql::names::{output_name, shown};
use crate::sql::plan::{bind, plan_query, result_schema};
use crate::sql::route::{Routed, WithPart, Write, route};
use crate::sql::text::parse::{ParsedStatement, fold, table_name};
use crate::{Error, Result, Value, dml};

/// A statement whose names have been looked up.
#[derive(Debug)]
pub struct CompiledStatement {
    pub(crate) kind: Kind,
    /// The types of its inputs.
    pub(crate) types: InputTypes,
    /// The columns of its rows, once they are known.
    pub(crate) shape: OnceLock<Arc<Shape>>,
    /// What runs it without a plan, if it is of such a shape.
    pub(crate) program: Option<Arc<Program>>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A query without rows that calls routines.
    Values(Vec<CompiledExpression>),
    /// A query, and the routines whose rows it reads.
    Query {
        query: Box<Query>,
        relations: Vec<Relation>,
    },
    Lock(LockingQuery),
    Write(Box<Write>),
    /// CALL. `outputs` are the inputs in the places of OUT and INOUT parameters.
    Call {
        routine: Arc<Routine>,
        arguments: Vec<Argument>,
        outputs: Vec<Option<usize>>,
    },
}

/// A routine that stands in FROM.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) name: String,
    pub(crate) routine: Arc<Routine>,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) shape: Arc<Shape>,
}

/// What a statement of a routine is, for messages and for those who must not change anything.
pub(crate) fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Values(_) | Kind::Query { .. } => "SELECT",
        Kind::Lock(_) => "SELECT … FOR UPDATE or SHARE",
        Kind::Write(write) => crate::session::write_name(write),
        Kind::Call { .. } => "CALL",
    }
}

impl CompiledStatement {
    /// The types of its inputs, in order.
    pub fn input_types(&self) -> &[DataType] {
        &self.types
    }

    /// Whether it is INSERT, UPDATE, DELETE or MERGE.
    pub fn changes_rows(&self) -> bool {
        match &self.kind {
            Kind::Write(write) => matches!(
                **write,
                Write::Insert(_) | Write::Update(_) | Write::Delete(_) | Write::Merge(_) | Write::With(_)
            ),
            _ => false,
        }
    }

    /// Whether it changes rows and returns some.
    pub fn returns_rows(&self) -> bool {
        fn returns(write: &Write) -> bool {
            match write {
                Write::Insert(insert) => insert.returning.is_some(),
                Write::Update(update) => update.returning.is_some(),
                Write::Delete(delete) => delete.returning.is_some(),
                Write::Merge(merge) => merge.returning.is_some(),
                Write::With(with) => match &with.main {
                    WithPart::Query(_) => true,
                    WithPart::Write(write) => returns(write),
                },
                _ => false,
            }
        }
        matches!(&self.kind, Kind::Write(write) if returns(write))
    }

    /// For a CALL: the inputs that stand for the OUT and INOUT parameters, in order; `None` where something else does.
    pub fn output_inputs(&self) -> Option<&[Option<usize>]> {
        match &self.kind {
            Kind::Call { outputs, .. } => Some(outputs),
            _ => None,
        }
    }

    /// Whether it is a query.
    pub fn is_query(&self) -> bool {
        matches!(self.kind, Kind::Values(_) | Kind::Query { .. } | Kind::Lock(_))
    }

    fn of(kind: Kind, types: InputTypes) -> Self {
        CompiledStatement { kind, types, shape: OnceLock::new(), program: None }
    }

    pub(crate) fn of_query(
        mut query: Query,
        types: InputTypes,
        context: &StatementContext,
        routines: &Routines,
    ) -> Result<Self> {
        if routines.is_empty(context) {
            return Ok(Self::of(Kind::Query { query: Box::new(query), relations: Vec::new() }, types));
        }
        let compiler = Compiler { context, routines };
        if let Some(items) = rowless_items(&query)
            && items.iter().any(|item| compiler.calls_routine(item))
        {
            if let [SelectItem::UnnamedExpr(Expr::Function(function))] = items
                && let Some(candidates) = compiler.routines_of(function)?
                && candidates.iter().any(|routine| routine.source.returns.is_set())
            {
                let name = last_name(&function.name);
                let relation = compiler.relation(function.clone(), &candidates, &types, &name, 0)?;
                let query = query_over(&relation);
                return Ok(Self::of(Kind::Query { query: Box::new(query), relations: vec![relation] }, types));
            }
            return compiler.values(items, types);
        }
        let relations = compiler.take_relations(&mut query, &types)?;
        Ok(Self::of(Kind::Query { query: Box::new(query), relations }, types))
    }

    /// The same, with the program of the row path for it, if there is one.
    pub(crate) fn with_program(mut self, context: &StatementContext) -> Self {
        let routed = match &self.kind {
            Kind::Query { query, relations } if relations.is_empty() => Routed::Query(query.clone()),
            Kind::Lock(query) => Routed::SelectAndLock(query.clone()),
            Kind::Write(write) if self.changes_rows() => Routed::Write(write.clone()),
            _ => return self,
        };
        let context = &context.clone().with_parameters(self.types.iter().cloned());
        self.program = row_path::compile(context, routed, &self.types).map(Arc::new);
        if let Some(schema) = self.program.as_ref().and_then(|program| program.schema()) {
            // Rows that come the ordinary way may have others, which `shape_for` tells.
            self.shape.get_or_init(|| Arc::new(shape_of(schema)));
        }
        self
    }

    /// The columns of what its program returns, if it has one that returns something.
    pub fn program_shape(&self) -> Option<&Arc<Shape>> {
        let schema = self.program.as_ref()?.schema()?;
        Some(self.shape.get_or_init(|| Arc::new(shape_of(schema))))
    }

    /// The columns of its rows; none if it gives no rows.
    pub(crate) fn describe(&self, context: &StatementContext) -> Result<Arc<Shape>> {
        if let Some(shape) = self.shape.get() {
            return Ok(Arc::clone(shape));
        }
        let nulls = || self.types.iter().map(Value::try_new_null).collect::<Result<Vec<_>, _>>();
        let shape = match &self.kind {
            Kind::Values(_) => return Err(Error::internal("the columns of values are known")),
            Kind::Query { query, relations } => {
                let context = context.clone().with_named(empty_relations(relations)?);
                let context = context.with_parameters(self.types.iter().cloned());
                let plan = bind(plan_query(&context, Query::clone(query))?, &nulls()?)?;
                shape_of(&shown(&result_schema(&context, &plan)))
            }
            Kind::Lock(query) => {
                let context = &context.clone().with_parameters(self.types.iter().cloned());
                let plan = bind(plan_query(context, Query::clone(&query.query))?, &nulls()?)?;
                shape_of(&shown(&result_schema(context, &plan)))
            }
            Kind::Write(write) => match dml::describe(context, Write::clone(write))?.result {
                Some(schema) => shape_of(&shown(&schema)),
                None => Shape { names: Vec::new(), types: Vec::new() },
            },
            Kind::Call { routine, .. } => {
                routine.output_shape().unwrap_or(Shape { names: Vec::new(), types: Vec::new() })
            }
        };
        Ok(Arc::clone(self.shape.get_or_init(|| Arc::new(shape))))
    }

    /// The shape of rows that came, the same value each time as long as they are alike.
    pub(crate) fn shape_for(&self, schema: &SchemaRef) -> Arc<Shape> {
        let found = shape_of(&shown(schema));
        let known = self.shape.get_or_init(|| Arc::new(found.clone()));
        if **known == found { Arc::clone(known) } else { Arc::new(found) }
    }
}

/// Looks the names of a statement up.
pub(crate) fn compile(
    statement: &SqlStatement,
    context: &StatementContext,
    routines: &Routines,
    variables: &mut dyn Variables,
) -> Result<CompiledStatement> {
    let mut types = InputTypes::new();
    let routed = match &statement.syntax {
        ParsedStatement::Sql(syntax) => {
            let mut syntax = Statement::clone(syntax);
            types = resolve_variables(&mut syntax, context, variables)?;
            if let Statement::Call(function) = syntax {
                return compile_call(function, types, context, routines);
            }
            route(ParsedStatement::Sql(Box::new(syntax)))?
        }
        other => route(other.clone())?,
    };
    match routed {
        Routed::Query(query) => CompiledStatement::of_query(*query, types, context, routines),
        Routed::SelectAndLock(query) => Ok(CompiledStatement::of(Kind::Lock(query), types)),
        Routed::Write(write) if matches!(*write, Write::CopyTo(_)) => Err(Error::unsupported("COPY … TO in a routine")),
        Routed::Write(write) => Ok(CompiledStatement::of(Kind::Write(write), types)),
        _ => Err(Error::unsupported("this statement in a routine")),
    }
    .map(|compiled| compiled.with_program(context))
}

pub(crate) fn compile_call(
    function: Function,
    types: InputTypes,
    context: &StatementContext,
    routines: &Routines,
) -> Result<CompiledStatement> {
    let (schema, name) = table_name(&function.name)?;
    let candidates = routines.find(context, schema.as_deref(), &name, true)?;
    if candidates.is_empty() {
        if !routines.find(context, schema.as_deref(), &name, false)?.is_empty() {
            return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, format!("{name} is not a procedure"))
                .with_hint("To call a function, use SELECT."));
        }
        return Err(Error::new(sqlstate::UNDEFINED_FUNCTION, format!("procedure {name} does not exist")));
    }
    let compiler = Compiler { context, routines };
    let all = match &function.args {
        FunctionArguments::List(list) => list.args.clone(),
        _ => Vec::new(),
    };
    let function = compiler.without_outputs(function, &candidates);
    let (routine, arguments) = compiler.arguments(function, &candidates, &types)?;
    let parameters = routine.source.parameters.iter();
    let outputs = match places_of_all(&all, &routine) {
        Some(places) => {
            let input = |place: usize| {
                let argument = places.iter().position(|found| *found == place)?;
                value_of(&all[argument]).and_then(input_of)
            };
            let outputs = parameters.enumerate().filter(|(_, parameter)| parameter.mode.is_output());
            outputs.map(|(place, _)| input(place)).collect()
        }
        // OUT parameters have no arguments, INOUT parameters have theirs in the place of the input.
        None => {
            let mut inputs = arguments.iter();
            let input = |parameter: &super::language::Parameter| match parameter.mode.is_input() {
                true => inputs.next().and_then(|argument| argument.value.as_input()),
                false => None,
            };
            let found: Vec<Option<usize>> = parameters.clone().map(input).collect();
            parameters.zip(found).filter(|(parameter, _)| parameter.mode.is_output()).map(|(_, input)| input).collect()
        }
    };
    Ok(CompiledStatement::of(Kind::Call { routine, arguments, outputs }, types))
}

/// The places of the parameters that the arguments of a CALL stand for, by place or by name. `None`: they are no such arguments, as
/// those that leave out OUT parameters, which RustyDB takes as well.
fn places_of_all(arguments: &[FunctionArg], routine: &Routine) -> Option<Vec<usize>> {
    let parameters = &routine.source.parameters;
    let place = |(index, argument): (usize, &FunctionArg)| match argument {
        FunctionArg::Unnamed(_) => Some(index).filter(|index| *index < parameters.len()),
        FunctionArg::Named { name, .. } | FunctionArg::ExprNamed { name: Expr::Identifier(name), .. } => {
            let name = fold(name);
            parameters.iter().position(|parameter| parameter.name.as_deref() == Some(name.as_str()))
        }
        FunctionArg::ExprNamed { .. } => None,
    };
    let places = arguments.iter().enumerate().map(place).collect::<Option<Vec<usize>>>()?;
    let doubled = places.iter().enumerate().any(|(index, place)| places[..index].contains(place));
    let mut defaults = routine.defaults.iter();
    let missing = parameters.iter().enumerate().any(|(place, parameter)| {
        let has_default = parameter.mode.is_input() && defaults.next().is_some_and(Option::is_some);
        !has_default && !places.contains(&place)
    });
    (!doubled && !missing).then_some(places)
}

/// What an argument is, by place or by name.
fn value_of(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(value), .. }
        | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(value), .. } => Some(value),
        _ => None,
    }
}

fn last_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default()
}

fn shape_of(schema: &SchemaRef) -> Shape {
    Shape::of_fields(schema.fields())
}

/// `SELECT * FROM relation`
fn query_over(relation: &Relation) -> Query {
    let text = format!("SELECT * FROM \"{}\"", relation.name.replace('"', "\"\""));
    match crate::sql::text::parse::parse_statement(&text).map(|parsed| parsed.statement) {
        Ok(ParsedStatement::Sql(statement)) => match *statement {
            Statement::Query(query) => *query,
            _ => super::expression::query_of(Vec::new()),
        },
        _ => super::expression::query_of(Vec::new()),
    }
}

/// Tables without rows in the places of routines, to plan a query with.
pub(crate) fn empty_relations(
    relations: &[Relation],
) -> Result<std::collections::HashMap<String, Arc<dyn datafusion::datasource::TableProvider>>> {
    let table = |relation: &Relation| -> Result<(String, Arc<dyn datafusion::datasource::TableProvider>)> {
        let schema = schema_of(&relation.shape);
        let table = datafusion::datasource::MemTable::try_new(schema, vec![Vec::new()])?;
        Ok((relation.name.clone(), Arc::new(table)))
    };
    relations.iter().map(table).collect()
}

impl Compiler<'_> {
    fn values(&self, items: &[SelectItem], types: InputTypes) -> Result<CompiledStatement> {
        let (mut names, mut kinds, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            let (name, syntax) = match item {
                SelectItem::UnnamedExpr(expr) => (output_name(expr), expr),
                SelectItem::ExprWithAlias { expr, alias } => (fold(alias), expr),
                other => return Err(Error::unsupported(format!("\"{other}\" beside the call of a routine"))),
            };
            let value = self.expression(syntax.clone(), &types)?;
            names.push(name);
            kinds.push(SqlType::plain(value.data_type.clone()));
            values.push(value);
        }
        let statement = CompiledStatement::of(Kind::Values(values), types);
        let _ = statement.shape.set(Arc::new(Shape { names, types: kinds }));
        Ok(statement)
    }

    /// What stands for OUT parameters in a CALL is not looked at.
    fn without_outputs(&self, mut function: Function, candidates: &[Arc<Routine>]) -> Function {
        if let FunctionArguments::List(list) = &mut function.args {
            let found = candidates.iter().find_map(|routine| {
                let parameters = &routine.source.parameters;
                let has_outputs = parameters.iter().any(|parameter| !parameter.mode.is_input());
                Some((parameters, places_of_all(&list.args, routine).filter(|_| has_outputs)?))
            });
            if let Some((parameters, places)) = found {
                let mut places = places.into_iter();
                list.args.retain(|_| places.next().is_some_and(|place| parameters[place].mode.is_input()));
            }
        }
        function
    }

    fn relation(
        &self,
        function: Function,
        candidates: &[Arc<Routine>],
        types: &InputTypes,
        name: &str,
        number: usize,
    ) -> Result<Relation> {
        let (routine, arguments) = self.arguments(function, candidates, types)?;
        if matches!(routine.source.returns, Returns::Void) && routine.result.shape().is_some() {
            return Err(Error::internal("a void function with columns"));
        }
        let shape = Arc::new(routine.columns(name));
        // No name that anybody types.
        let name = if number == 0 { name.to_owned() } else { format!("{name}\u{1}{number}") };
        Ok(Relation { name, routine, arguments, shape })
    }

    /// Puts names of relations in the places of routines in FROM.
    fn take_relations(&self, query: &mut Query, types: &InputTypes) -> Result<Vec<Relation>> {
        struct Taker<'a> {
            compiler: &'a Compiler<'a>,
            types: &'a InputTypes,
            relations: Vec<Relation>,
        }
        impl Taker<'_> {
            fn take(&mut self, factor: &mut TableFactor) -> Result<()> {
                let TableFactor::Table { name, alias, args: args @ Some(_), with_ordinality, .. } = factor else {
                    return Ok(());
                };
                let (schema, plain) = table_name(name)?;
                let candidates =
                    self.compiler.routines.find(self.compiler.context, schema.as_deref(), &plain, false)?;
                let built_in = self.compiler.context.shared().table_functions().contains_key(&plain);
                if candidates.is_empty() || (schema.is_none() && built_in) {
                    return Ok(());
                }
                if *with_ordinality {
                    return Err(Error::unsupported("WITH ORDINALITY after a routine"));
                }
                let Some(TableFunctionArgs { args: list, settings: _ }) = args.take() else { return Ok(()) };
                let text = format!("SELECT {name}()");
                let mut function = match crate::sql::text::parse::parse_expression(&text["SELECT ".len()..])? {
                    Expr::Function(function) => function,
                    _ => return Err(Error::internal("a call that is none")),
                };
                if let FunctionArguments::List(arguments) = &mut function.args {
                    arguments.args = list;
                }
                let shown = alias.as_ref().map_or_else(|| plain.clone(), |alias| fold(&alias.name));
                let number = self.relations.len() + 1;
                let relation = self.compiler.relation(function, &candidates, self.types, &shown, number)?;
                *name = ObjectName::from(vec![quoted(&relation.name)]);
                if alias.is_none() {
                    *alias = Some(TableAlias {
                        explicit: true,
                        name: Ident::with_quote('"', plain.as_str()),
                        columns: Vec::new(),
                        at: None,
                    });
                }
                self.relations.push(relation);
                Ok(())
            }
        }
        impl VisitorMut for Taker<'_> {
            type Break = Error;
            fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
                match self.take(factor) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            }
        }
        let mut taker = Taker { compiler: self, types, relations: Vec::new() };
        match VisitMut::visit(query, &mut taker) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(taker.relations),
        }
    }

    /// Whether a query reads the rows of a routine.
    pub(crate) fn reads_routine(&self, query: &Query) -> bool {
        struct Finder<'a>(&'a Compiler<'a>);
        impl datafusion::sql::sqlparser::ast::Visitor for Finder<'_> {
            type Break = ();
            fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
                let TableFactor::Table { name, args: Some(_), .. } = factor else { return ControlFlow::Continue(()) };
                let Ok((schema, plain)) = table_name(name) else { return ControlFlow::Continue(()) };
                let built_in = schema.is_none() && self.0.context.shared().table_functions().contains_key(&plain);
                match self.0.routines.find(self.0.context, schema.as_deref(), &plain, false) {
                    Ok(found) if found.is_empty() || built_in => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            }
        }
        Visit::visit(query, &mut Finder(self)).is_break()
    }
}

/// The rows of a statement, one after the other.
pub struct Rows {
    shape: Arc<Shape>,
    source: Source,
}

enum Source {
    Made(VecDeque<Vec<Datum>>),
    Stream { stream: SendableRecordBatchStream, batch: Option<RecordBatch>, next: usize },
}

impl Rows {
    /// These rows, with these columns.
    pub fn made(shape: Arc<Shape>, rows: Vec<Vec<Datum>>) -> Rows {
        Rows { shape, source: Source::Made(rows.into()) }
    }

    pub(crate) fn of_batches(shape: Arc<Shape>, batches: &[RecordBatch]) -> Result<Rows> {
        let mut rows = VecDeque::new();
        for batch in batches {
            for row in 0..batch.num_rows() {
                rows.push_back(row_of(batch, row)?);
            }
        }
        Ok(Rows { shape, source: Source::Made(rows) })
    }

    pub(crate) fn streamed(shape: Arc<Shape>, stream: SendableRecordBatchStream) -> Rows {
        Rows { shape, source: Source::Stream { stream, batch: None, next: 0 } }
    }

    /// Their columns. Statements that run again give the same value again.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// Whether all of them are there.
    pub fn is_made(&self) -> bool {
        matches!(self.source, Source::Made(_))
    }

    /// The next row, if all are there: otherwise it may have to be waited for.
    pub fn next_at_once(&mut self) -> Option<Option<Vec<Datum>>> {
        match &mut self.source {
            Source::Made(rows) => Some(rows.pop_front()),
            Source::Stream { .. } => None,
        }
    }

    /// The next row.
    pub async fn next(&mut self) -> Result<Option<Vec<Datum>>> {
        match &mut self.source {
            Source::Made(rows) => Ok(rows.pop_front()),
            Source::Stream { stream, batch, next } => loop {
                if let Some(rows) = batch
                    && *next < rows.num_rows()
                {
                    *next += 1;
                    return row_of(rows, *next - 1).map(Some);
                }
                match stream.next().await {
                    None => return Ok(None),
                    Some(rows) => (*batch, *next) = (Some(rows?), 0),
                }
            },
        }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("shape", &self.shape).finish_non_exhaustive()
    }
}

fn row_of(batch: &RecordBatch, row: usize) -> Result<Vec<Datum>> {
    batch.columns().iter().map(|column| Ok(Datum::of(&Value::try_from_array(column, row)?))).collect()
}
