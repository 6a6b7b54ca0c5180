//! A statement as a text: split from a script, judged by how deep it will nest, its tokens mended where PostgreSQL's
//! are read otherwise, and parsed. An error's place in the text is found here, too.

pub(in crate::sql) mod depth;
pub(in crate::sql) mod idle_words;
pub(in crate::sql) mod late_conditions;
pub(in crate::sql) mod no_columns;
pub(crate) mod parse;
pub(crate) mod places;
pub(in crate::sql) mod refused_forms;
pub(crate) mod split;
pub(in crate::sql) mod tail_forms;
pub(in crate::sql) mod token_forms;
