//! The names of commands, in whatever form a client writes them.
//!
//! A command comes in an `Any`, which names its type by a URL. Of that, says protobuf, the part behind the last slash counts;
//! arrow-flight compares all of it, and knows what almost everybody writes.

use arrow_flight::sql::Any;
use bytes::Bytes;
use prost::Message;

const USUAL: &str = "type.googleapis.com/";

/// Tag and length of the name, which encoders write first. All names are shorter than 128 bytes.
const BEFORE_NAME_BYTES: usize = 2;

/// The same command, its type named as usual.
pub(crate) fn usual(any: Any) -> Any {
    match any.type_url.rsplit_once('/') {
        Some((_, name)) if !any.type_url.starts_with(USUAL) => Any { type_url: format!("{USUAL}{name}"), ..any },
        _ => any,
    }
}

/// The same for one that is encoded; `None`: it is as usual, or no command at all.
pub(crate) fn usual_form(encoded: &Bytes) -> Option<Bytes> {
    let name = encoded.get(BEFORE_NAME_BYTES..)?;
    if name.starts_with(USUAL.as_bytes()) {
        return None;
    }
    let any = Any::decode(encoded.clone()).ok()?;
    let is_usual = any.type_url.starts_with(USUAL);
    (!is_usual).then(|| usual(any).encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandGetCatalogs, ProstMessageExt};

    use super::*;

    #[test]
    fn what_stands_before_the_last_slash_does_not_matter() {
        let known = CommandGetCatalogs {}.as_any();
        let name = "arrow.flight.protocol.sql.CommandGetCatalogs";
        for url in [format!("/{name}"), format!("example.com/{name}"), format!("https://example.com/a/{name}")] {
            let other = Any { type_url: url, ..known.clone() };
            let form = usual_form(&other.encode_to_vec().into()).expect("another form");
            assert_eq!(form, known.encode_to_vec());
            assert_eq!(usual(other), known);
        }
        assert!(usual_form(&known.encode_to_vec().into()).is_none());
        assert!(usual_form(&Bytes::from_static(b"\xff\xff\xff")).is_none());
        let bare = Any { type_url: name.to_owned(), ..known.clone() };
        assert_ne!(usual(bare), known, "a URL has a slash");
    }
}
