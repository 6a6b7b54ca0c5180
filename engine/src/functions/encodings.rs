//! Bytes as texts: the formats of `encode` and `decode`, and the character sets of `convert_from` and `convert_to`.

use std::fmt::Write;

use super::input::bytes_of;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The letters of base64, by the six bits they stand for.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Letters of base64 in a line.
const BASE64_LINE: usize = 76;

enum Format {
    Hex,
    Base64,
    Escape,
}

impl Format {
    fn named(name: &str) -> Result<Format> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "hex" => Format::Hex,
            "base64" => Format::Base64,
            "escape" => Format::Escape,
            _ => return Err(invalid(format!("unrecognized encoding: \"{name}\""))),
        })
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
}

/// Bytes as a text of a format.
pub(super) fn encoded(bytes: &[u8], format: &str) -> Result<String> {
    Ok(match Format::named(format)? {
        Format::Hex => listed(bytes, "", ""),
        Format::Base64 => base64_of(bytes),
        Format::Escape => {
            let mut text = String::with_capacity(bytes.len());
            for byte in bytes {
                match byte {
                    b'\\' => text.push_str("\\\\"),
                    0 | 0x80.. => {
                        // Writing to a String cannot fail.
                        let _ = write!(text, "\\{byte:03o}");
                    }
                    byte => text.push(char::from(*byte)),
                }
            }
            text
        }
    })
}

/// The bytes that a text of a format stands for.
pub(super) fn decoded(text: &str, format: &str) -> Result<Vec<u8>> {
    match Format::named(format)? {
        Format::Hex => bytes_of(&format!("\\x{text}")),
        Format::Base64 => bytes_of_base64(text),
        // Which begins the hexadecimal form of a bytea.
        Format::Escape if text.starts_with("\\x") => {
            Err(Error::new(sqlstate::INVALID_TEXT, "invalid input syntax for type bytea"))
        }
        Format::Escape => bytes_of(text),
    }
}

/// Bytes in hexadecimal digits, each after a prefix, with something between them.
fn listed(bytes: &[u8], prefix: &str, between: &str) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for (place, byte) in bytes.iter().enumerate() {
        let between = if place == 0 { "" } else { between };
        let _ = write!(text, "{between}{prefix}{byte:02x}");
    }
    text
}

fn base64_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    let mut in_line = 0;
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for letter in 0..4_usize {
            match letter <= group.len() {
                true => text.push(char::from(BASE64[(bits >> (18 - 6 * letter) & 63) as usize])),
                false => text.push('='),
            }
        }
        in_line += 4;
        // After the last full line as well, as PostgreSQL has it.
        if in_line == BASE64_LINE && group.len() == 3 {
            text.push('\n');
            in_line = 0;
        }
    }
    text
}

fn bytes_of_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut letters) = (0_u32, 0);
    // How many bytes the last group has, once its padding has begun.
    let mut last: Option<usize> = None;
    for letter in text.chars() {
        let value = match letter {
            ' ' | '\t' | '\n' | '\r' => continue,
            '=' => {
                if last.is_none() {
                    last = match letters {
                        2 => Some(1),
                        3 => Some(2),
                        _ => return Err(invalid("unexpected \"=\" while decoding base64 sequence")),
                    };
                }
                0
            }
            letter => {
                let known = BASE64.iter().position(|known| char::from(*known) == letter);
                let unknown = || invalid(format!("invalid symbol \"{letter}\" found while decoding base64 sequence"));
                u32::try_from(known.ok_or_else(unknown)?).unwrap_or(0)
            }
        };
        bits = bits << 6 | value;
        letters += 1;
        if letters == 4 {
            let [_, group @ ..] = bits.to_be_bytes();
            bytes.extend(group.into_iter().take(last.unwrap_or(3)));
            (bits, letters) = (0, 0);
        }
    }
    match letters {
        0 => Ok(bytes),
        _ => Err(invalid("invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted.")),
    }
}

/// A character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Utf8,
    Latin1,
}

impl Charset {
    /// That of a name, of which only letters and digits count; `role` is what it is asked for.
    pub(super) fn named(name: &str, role: &str) -> Result<Charset> {
        let letters = name.chars().filter(char::is_ascii_alphanumeric);
        let letters: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
        match letters.as_str() {
            "utf8" | "unicode" => Ok(Charset::Utf8),
            "latin1" | "iso88591" => Ok(Charset::Latin1),
            _ => {
                Err(invalid(format!("invalid {role} encoding name \"{name}\"")).with_hint("UTF8 and LATIN1 are known."))
            }
        }
    }

    /// What a text of such characters says.
    pub(super) fn text_of(self, bytes: &[u8]) -> Result<String> {
        let invalid = |name: &str, bytes: &[u8]| {
            let sequence = listed(bytes, "0x", " ");
            let message = format!("invalid byte sequence for encoding \"{name}\": {sequence}");
            Error::new(sqlstate::INVALID_CHARACTER, message)
        };
        // No text has this character.
        let zero = bytes.iter().position(|byte| *byte == 0);
        match self {
            Charset::Utf8 => {
                let wrong = match (std::str::from_utf8(bytes), zero) {
                    (Ok(text), None) => return Ok(text.to_owned()),
                    (Ok(_), Some(zero)) => zero,
                    (Err(error), zero) => zero.unwrap_or(usize::MAX).min(error.valid_up_to()),
                };
                let rest = &bytes[wrong.min(bytes.len())..];
                let length = match rest.first() {
                    Some(0xc0..=0xdf) => 2,
                    Some(0xe0..=0xef) => 3,
                    Some(0xf0..=0xf7) => 4,
                    _ => 1,
                };
                Err(invalid("UTF8", &rest[..rest.len().min(length)]))
            }
            Charset::Latin1 => match zero {
                Some(_) => Err(invalid("LATIN1", &[0])),
                None => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
            },
        }
    }

    /// The bytes of a text in such characters.
    pub(super) fn bytes_of(self, text: &str) -> Result<Vec<u8>> {
        match self {
            Charset::Utf8 => Ok(text.as_bytes().to_vec()),
            Charset::Latin1 => text
                .chars()
                .map(|letter| {
                    u8::try_from(u32::from(letter)).map_err(|_| {
                        let sequence = listed(letter.to_string().as_bytes(), "0x", " ");
                        let message = format!(
                            "character with byte sequence {sequence} in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\""
                        );
                        Error::new(sqlstate::UNTRANSLATABLE_CHARACTER, message)
                    })
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_postgresql() {
        let cases: [(&[u8], &str, &str); 6] = [
            (b"\x00\xffA", "HEX", "00ff41"),
            (b"\x00\xffA\\", "base64", "AP9BXA=="),
            (b"\x00\xffA", "base64", "AP9B"),
            (b"\x00\xffAB\x01", "base64", "AP9BQgE="),
            (b"\x00\xffA\\", "escape", "\\000\\377A\\\\"),
            (b"", "base64", ""),
        ];
        for (bytes, format, text) in cases {
            assert_eq!(encoded(bytes, format).unwrap(), text);
            assert_eq!(decoded(text, format).unwrap(), bytes);
        }
        assert_eq!(encoded(&[0xab; 57], "base64").unwrap(), format!("{}\n", "q6ur".repeat(19)));
        assert_eq!(decoded(" AP 9B\n", "base64").unwrap(), b"\x00\xffA");
        for (text, format, state) in [
            ("zz", "hex", "22023"),
            ("0", "hex", "22023"),
            ("!!", "base64", "22023"),
            ("AP9", "base64", "22023"),
            ("A=", "base64", "22023"),
            ("\\x41", "escape", "22P02"),
            ("", "nope", "22023"),
        ] {
            assert_eq!(decoded(text, format).unwrap_err().sqlstate(), state, "{text} {format}");
        }
    }

    #[test]
    fn character_sets_are_converted() {
        assert_eq!(Charset::named("Utf-8", "source").unwrap(), Charset::Utf8);
        assert_eq!(Charset::Latin1.text_of(b"\xe4").unwrap(), "ä");
        assert_eq!(Charset::Latin1.bytes_of("ä").unwrap(), b"\xe4");
        let error = Charset::Utf8.text_of(b"a\xe4b").unwrap_err();
        assert_eq!(error.message(), "invalid byte sequence for encoding \"UTF8\": 0xe4 0x62");
        let error = Charset::Utf8.text_of(b"a\x00\xff").unwrap_err();
        assert_eq!(error.message(), "invalid byte sequence for encoding \"UTF8\": 0x00");
        assert_eq!(Charset::Latin1.bytes_of("€").unwrap_err().sqlstate(), "22P05");
    }
}
