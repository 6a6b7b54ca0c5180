//! `to_char(number, format)` and `to_number(text, format)` with PostgreSQL's formats.
//!
//! | pattern | stands for | | pattern | stands for |
//! |---|---|---|---|---|
//! | `9` | a digit, a blank in front of the number | | `MI` `PL` `SG` `S` | minus, plus, either; `S` beside the digits |
//! | `0` | a digit, a zero in front of the number | | `PR` | a negative number in `<…>` |
//! | `.` `D` | the decimal point | | `FM` | without blanks, and without zeros for 9s at the end |
//! | `,` `G` | the separator of thousands | | `TH` `th` | `1st`, `2nd`, … |
//! | `RN` | Roman digits | | `"text"` | itself, of `\` the letter behind it |
//! | `V` | a factor of ten for each digit behind it | | `EEEE` | an exponent |
//! | `L` | a currency's symbol: a blank, as there is none | | | |
//!
//! `to_number` refuses `V`, `EEEE` and `RN`.

use crate::error::sqlstate;
use crate::{Error, Result};

/// A format, read.
#[derive(Debug, Default)]
struct Format {
    parts: Vec<Part>,
    /// Digits before the point, and the first of them that is a `0`.
    whole: usize,
    first_zero: Option<usize>,
    /// Digits after the point, and the last of them that is a `0`.
    fraction: usize,
    last_zero: Option<usize>,
    point: bool,
    fill: bool,
    sign: Sign,
    ordinal: Option<bool>,
    roman: Option<bool>,
    exponent: bool,
    /// The digits behind a `V`, if there is one.
    factors: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Place of a digit, counted from the left.
    Digit(usize),
    Point,
    /// After so many digits.
    Separator(usize),
    Text(String),
    Minus,
    Plus,
    Either,
    Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Sign {
    /// A place of its own in front of the digits.
    #[default]
    Plain,
    /// `S` in front of the digits, or behind them.
    Before,
    After,
    /// `<…>`
    Brackets,
    /// MI or SG, at the place where it is.
    Placed,
}

fn read(text: &str) -> Result<Format> {
    let mut format = Format::default();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let upper: String = rest.chars().take(4).collect::<String>().to_ascii_uppercase();
        let starts = |pattern: &str| upper.starts_with(pattern);
        let taken = if letter == '"' {
            let (text, length) = quoted(rest);
            format.parts.push(Part::Text(text));
            length
        } else if starts("\\\"") {
            format.parts.push(Part::Text("\"".to_owned()));
            2
        } else if starts("FM") {
            format.fill = true;
            2
        } else if starts("EEEE") {
            format.exponent = true;
            4
        } else if starts("RN") {
            format.roman = Some(rest.starts_with('R'));
            2
        } else if starts("TH") {
            format.ordinal = Some(rest.starts_with('T'));
            2
        } else if starts("MI") || starts("PL") || starts("SG") {
            let part = match letter.to_ascii_uppercase() {
                'M' => Part::Minus,
                'P' => Part::Plus,
                _ => Part::Either,
            };
            // PL shows a plus, and leaves a minus its place.
            if part != Part::Plus {
                format.sign = Sign::Placed;
            }
            format.parts.push(part);
            2
        } else if starts("PR") {
            format.sign = Sign::Brackets;
            2
        } else if starts("V") {
            if format.point {
                return Err(Error::syntax("cannot use \"V\" and decimal point together"));
            }
            format.factors = Some(0);
            1
        } else if starts("L") {
            format.parts.push(Part::Text(" ".to_owned()));
            1
        } else {
            match letter.to_ascii_uppercase() {
                '9' | '0' => {
                    let place = format.whole + format.fraction;
                    format.parts.push(Part::Digit(place));
                    if format.point {
                        format.fraction += 1;
                        if letter == '0' {
                            format.last_zero = Some(format.fraction);
                        }
                    } else {
                        if letter == '0' && format.first_zero.is_none() {
                            format.first_zero = Some(format.whole);
                        }
                        format.whole += 1;
                        if let Some(factors) = &mut format.factors {
                            *factors += 1;
                        }
                    }
                }
                '.' | 'D' => {
                    if format.point {
                        return Err(Error::syntax("multiple decimal points"));
                    }
                    if format.factors.is_some() {
                        return Err(Error::syntax("cannot use \"V\" and decimal point together"));
                    }
                    format.point = true;
                    format.parts.push(Part::Point);
                }
                ',' | 'G' => format.parts.push(Part::Separator(format.whole + format.fraction)),
                'S' => {
                    format.sign = if format.whole + format.fraction == 0 { Sign::Before } else { Sign::After };
                    format.parts.push(Part::Sign);
                }
                _ => format.parts.push(Part::Text(letter.to_string())),
            }
            letter.len_utf8()
        };
        rest = &rest[taken..];
    }
    Ok(format)
}

/// The text in the quotes with which this begins, and how long it is with them.
fn quoted(format: &str) -> (String, usize) {
    let mut text = String::new();
    let mut letters = format.char_indices().skip(1);
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return (text, place + 1),
            '\\' => text.push(letters.next().map_or(letter, |(_, escaped)| escaped)),
            letter => text.push(letter),
        }
    }
    (text, format.len())
}

/// `to_char` of a number, given as decimal digits.
pub(super) fn print(number: &str, text: &str) -> Result<String> {
    let format = read(text)?;
    if let Some(upper) = format.roman {
        return Ok(roman(number, upper, format.fill));
    }
    if format.exponent {
        return Ok(scientific(number, format.fraction));
    }
    let multiplied = format.factors.map(|factors| multiplied(number, factors));
    let number = multiplied.as_deref().unwrap_or(number);
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let (whole, fraction) = rounded(digits, format.fraction);
    // A number that rounds to zero has no sign.
    let negative =
        negative && (whole.bytes().any(|digit| digit != b'0') || fraction.bytes().any(|digit| digit != b'0'));
    let whole = whole.trim_start_matches('0');
    if whole.len() > format.whole {
        return Ok(overflowing(&format, negative));
    }
    let mut places = vec![None; format.whole - whole.len()];
    places.extend(whole.chars().map(Some));
    if let Some(first) = format.first_zero {
        for place in &mut places[first..] {
            place.get_or_insert('0');
        }
    }
    // A zero before the point, unless the format has only 9s there and something follows.
    let vanishes = format.fill && format.last_zero.is_none() && fraction.bytes().all(|digit| digit == b'0');
    if !places.iter().any(Option::is_some)
        && (format.fraction == 0 || vanishes)
        && let Some(last) = places.last_mut()
    {
        *last = Some('0');
    }
    let mut shown_fraction = fraction.as_str();
    if format.fill {
        let least = format.last_zero.unwrap_or(0);
        while shown_fraction.len() > least && shown_fraction.ends_with('0') {
            shown_fraction = &shown_fraction[..shown_fraction.len() - 1];
        }
    }
    let digit = |place: usize| -> Option<char> {
        match place < format.whole {
            true => places[place],
            false => shown_fraction.chars().nth(place - format.whole),
        }
    };
    let first_shown = (0..format.whole).find(|place| places[*place].is_some());
    let mut out = String::new();
    let mut sign_written = !matches!(format.sign, Sign::Plain | Sign::Before | Sign::Brackets);
    let sign = match (format.sign, negative) {
        (Sign::Brackets, true) => "<",
        (Sign::Before, false) => "+",
        (_, true) => "-",
        (Sign::Plain | Sign::Brackets, false) if format.fill => "",
        (_, false) => " ",
    };
    // Neither NaN nor Infinity has digits behind a point.
    let is_number = whole.bytes().all(|digit| digit.is_ascii_digit());
    for part in &format.parts {
        match part {
            Part::Point if !is_number => {}
            // A number without a fraction has no point, and there PostgreSQL's text ends, whatever the format goes on with.
            Part::Point if format.whole > 0 && format.fraction == 0 => return Ok(out),
            Part::Digit(place) if !is_number && *place >= format.whole => {}
            Part::Digit(place) => {
                let found = digit(*place);
                let is_first = match first_shown {
                    Some(first) => *place == first,
                    None => *place == format.whole,
                };
                if !sign_written && is_first {
                    out.push_str(sign);
                    sign_written = true;
                }
                match found {
                    Some(digit) => out.push(digit),
                    None if *place < format.whole && !format.fill => out.push(' '),
                    None => {}
                }
            }
            Part::Point => {
                if !sign_written && first_shown.is_none() {
                    out.push_str(sign);
                    sign_written = true;
                }
                out.push('.');
            }
            Part::Separator(place) => {
                let begun = place.checked_sub(1).is_some_and(|before| digit(before).is_some());
                match (begun, format.fill) {
                    (true, _) => out.push(','),
                    (false, false) => out.push(' '),
                    (false, true) => {}
                }
            }
            Part::Text(text) => out.push_str(text),
            Part::Minus => match (negative, format.fill) {
                (true, _) => out.push('-'),
                (false, false) => out.push(' '),
                (false, true) => {}
            },
            Part::Plus => match (negative, format.fill) {
                (false, _) => out.push('+'),
                (true, false) => out.push(' '),
                (true, true) => {}
            },
            Part::Either => out.push(if negative { '-' } else { '+' }),
            Part::Sign => {
                if format.sign == Sign::After {
                    out.push(if negative { '-' } else { '+' });
                }
            }
        }
    }
    if !sign_written {
        out.push_str(sign);
    }
    if format.sign == Sign::Brackets {
        match (negative, format.fill) {
            (true, _) => out.push('>'),
            (false, false) => out.push(' '),
            (false, true) => {}
        }
    }
    if let Some(upper) = format.ordinal
        && format.fraction == 0
        && !negative
    {
        let suffix = ordinal(whole);
        out.push_str(&if upper { suffix.to_ascii_uppercase() } else { suffix.to_owned() });
    }
    Ok(out)
}

/// A number times so many factors of ten.
fn multiplied(number: &str, factors: usize) -> String {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let moved: String = fraction.chars().chain(std::iter::repeat('0')).take(factors).collect();
    format!("{whole}{moved}.{}", fraction.get(factors..).unwrap_or(""))
}

/// A number with an exponent, and so many digits behind the point.
fn scientific(number: &str, places: usize) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or((' ', number), |digits| ('-', digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let Some(first) = significant.chars().next().filter(char::is_ascii_digit) else {
        // Zero, or none at all.
        let point = if places > 0 { "." } else { "" };
        return if significant.is_empty() { format!(" 0{point}{}e+00", "0".repeat(places)) } else { number.to_owned() };
    };
    let exponent = whole.len() as i64 - 1 - (all.len() - significant.len()) as i64;
    // 9.999 becomes 10.00, as a numeric of PostgreSQL does.
    let (whole, fraction) = rounded(&format!("{first}.{}", &significant[1..]), places);
    let point = if places > 0 { "." } else { "" };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{whole}{point}{fraction}e{exponent_sign}{:02}", exponent.abs())
}

/// The digits before the point, and so many after it; half is rounded up.
fn rounded(digits: &str, places: usize) -> (String, String) {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut kept: Vec<u8> = whole.bytes().chain(fraction.bytes().take(places)).collect();
    kept.resize(whole.len() + places, b'0');
    if fraction.as_bytes().get(places).is_some_and(|digit| *digit >= b'5') {
        let mut carries = true;
        for digit in kept.iter_mut().rev() {
            (*digit, carries) = if *digit == b'9' { (b'0', true) } else { (*digit + 1, false) };
            if !carries {
                break;
            }
        }
        if carries {
            kept.insert(0, b'1');
        }
    }
    let fraction = kept.split_off(kept.len() - places);
    let text = |digits: Vec<u8>| digits.into_iter().map(char::from).collect();
    (text(kept), text(fraction))
}

/// What is shown of a number with more digits than the format.
fn overflowing(format: &Format, negative: bool) -> String {
    let mut out = String::new();
    // In front of the first digit.
    let mut before = match (format.sign, negative, format.fill) {
        (Sign::Plain | Sign::Before, true, _) => "-",
        (Sign::Before, false, _) => "+",
        (Sign::Plain | Sign::Brackets, false, false) => " ",
        (Sign::Brackets, true, _) => "<",
        _ => "",
    };
    let sign = if negative { '-' } else { '+' };
    for part in &format.parts {
        if matches!(part, Part::Digit(_) | Part::Point) {
            out.push_str(std::mem::take(&mut before));
        }
        match part {
            Part::Digit(_) => out.push('#'),
            Part::Point => out.push('.'),
            Part::Separator(_) => out.push(','),
            Part::Text(text) => out.push_str(text),
            Part::Either => out.push(sign),
            Part::Sign if format.sign == Sign::After => out.push(sign),
            Part::Sign => {}
            Part::Minus if negative => out.push('-'),
            Part::Plus if !negative => out.push('+'),
            Part::Minus | Part::Plus if format.fill => {}
            Part::Minus | Part::Plus => out.push(' '),
        }
    }
    match (format.sign, negative, format.fill) {
        (Sign::Brackets, true, _) => out.push('>'),
        (Sign::Brackets, false, false) => out.push(' '),
        _ => {}
    }
    out
}

pub(super) fn ordinal(digits: &str) -> &'static str {
    let digits = if digits.is_empty() { "0" } else { digits };
    match (digits.as_bytes().iter().rev().nth(1), digits.as_bytes().last()) {
        (Some(b'1'), _) => "th",
        (_, Some(b'1')) => "st",
        (_, Some(b'2')) => "nd",
        (_, Some(b'3')) => "rd",
        _ => "th",
    }
}

fn roman(number: &str, upper: bool, fill: bool) -> String {
    const WIDTH: usize = 15;
    const DIGITS: [(u32, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let (whole, _) = rounded(number, 0);
    let Some(mut rest) = whole.parse::<u32>().ok().filter(|number| (1..4000).contains(number)) else {
        return "#".repeat(WIDTH);
    };
    let mut out = String::new();
    for (value, digit) in DIGITS {
        while rest >= value {
            out.push_str(digit);
            rest -= value;
        }
    }
    let out = if upper { out } else { out.to_ascii_lowercase() };
    if fill { out } else { format!("{out:>WIDTH$}") }
}

/// `to_number`: the decimal digits of a text that has that format.
pub(super) fn parse(text: &str, format: &str) -> Result<String> {
    let format = read(format)?;
    let refused = [(format.roman.is_some(), "RN"), (format.exponent, "EEEE"), (format.factors.is_some(), "V")];
    if let Some((_, pattern)) = refused.iter().find(|(is_there, _)| *is_there) {
        return Err(Error::unsupported(format!("{pattern} in the format of to_number")));
    }
    // A sign behind the digits is one only where the format has it, and so are brackets.
    let before_digits = &text[..text.find(|letter: char| letter.is_ascii_digit()).unwrap_or(text.len())];
    let negative = match format.sign {
        Sign::Plain => before_digits.contains('-'),
        Sign::Brackets => before_digits.contains(['-', '<']),
        Sign::Before | Sign::After | Sign::Placed => text.contains('-'),
    };
    let (mut whole, mut fraction, mut behind) = (String::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '0'..='9' if behind && fraction.len() < format.fraction => fraction.push(letter),
            '0'..='9' if !behind && whole.len() < format.whole => whole.push(letter),
            '0'..='9' => break,
            '.' if behind || !format.point => break,
            '.' => behind = true,
            _ => {}
        }
    }
    if whole.is_empty() && fraction.is_empty() {
        let message = format!("invalid input syntax for type numeric: \"{text}\"");
        return Err(Error::new(sqlstate::INVALID_TEXT, message));
    }
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { &whole }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of PostgreSQL's manual, and what PostgreSQL 15 gives for others.
    #[test]
    fn numbers_are_printed_as_postgresql_prints_them() {
        for (number, format, expected) in [
            ("-0.1", "99.99", "  -.10"),
            ("-0.1", "FM9.99", "-.1"),
            ("0.1", "0.9", " 0.1"),
            ("12", "9990999.9", "    0012.0"),
            ("12", "FM9990999.9", "0012."),
            ("485", "999", " 485"),
            ("-485", "999", "-485"),
            ("485", "9 9 9", " 4 8 5"),
            ("1485", "9,999", " 1,485"),
            ("1485", "9G999", " 1,485"),
            ("148.5", "999.999", " 148.500"),
            ("148.5", "FM999.999", "148.5"),
            ("148.5", "FM999.990", "148.500"),
            ("3148.5", "9,999.999", " 3,148.500"),
            ("-485", "999S", "485-"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("485", "FM999MI", "485"),
            ("485", "PL999", "+ 485"),
            ("-485", "PL999", " -485"),
            ("485", "FMPL999", "+485"),
            ("-485", "FMPL999", "-485"),
            ("-485", "999PL", "-485 "),
            ("12", "PL9", "+ #"),
            ("-12", "PL9", " -#"),
            ("485", "SG999", "+485"),
            ("-485", "SG999", "-485"),
            ("-485", "9SG99", "4-85"),
            ("-485", "999PR", "<485>"),
            ("485", "RN", "        CDLXXXV"),
            ("485", "FMRN", "CDLXXXV"),
            ("482", "999th", " 482nd"),
            ("485", "\"Good number:\"999", "Good number: 485"),
            ("485.8", "\"Pre:\"999\" Post:\" .999", "Pre: 485 Post: .800"),
            ("485", "\"a\\\"b\\\\\"999", "a\"b\\ 485"),
            ("485", "\\\"999\\\"", "\" 485\""),
            ("485", "9\\99", " 4\\85"),
            ("485", "999\"x", " 485x"),
            ("100", "FM999.", "100"),
            ("100.5", "999.", " 101"),
            ("-5", "9.MI", "5"),
            ("1", "9.\"x\"", " 1"),
            ("12", "9.", " #."),
            ("0", "9G999D999G999", "      .000,000"),
            ("1234.5", "9G999D999G999", " 1,234.500,000"),
            ("1234.5", "FM9,999.00", "1,234.50"),
            ("1234", "999", " ###"),
            ("0", "9", " 0"),
            ("0", "99.99", "   .00"),
            ("0", "FM99.99", "0."),
            ("1.995", "9.99", " 2.00"),
            ("9.99", "9.9", " #.#"),
            ("12345", "9999PR", " #### "),
            ("-12345", "9999PR", "<####>"),
            ("12345", "FM9999PR", "####"),
            ("-12345", "9999S", "####-"),
            ("12345", "9999S", "####+"),
            ("-12345", "9999MI", "####-"),
            ("12345", "9999MI", "#### "),
            ("-12345", "SG9999", "-####"),
            ("NaN", "999D9", " NaN"),
            ("NaN", "9", " #"),
            ("1234", "9.99EEEE", " 1.23e+03"),
            ("-0.00123", "9.99EEEE", "-1.23e-03"),
            ("9.999", "9.99EEEE", " 10.00e+00"),
            ("0", "9.99EEEE", " 0.00e+00"),
            ("1234", "9EEEE", " 1e+03"),
            ("12.45", "99V9", " 125"),
            ("-12.4", "99V9", "-124"),
            ("12", "99V999", " 12000"),
            ("-485", "L999", " -485"),
            ("485", "FML999", " 485"),
        ] {
            assert_eq!(print(number, format).unwrap(), expected, "{number} as {format}");
        }
        assert_eq!(print("1", "V9.9").unwrap_err().sqlstate(), "42601");
    }

    #[test]
    fn numbers_are_read_by_their_format() {
        assert_eq!(parse("12,454.8-", "99G999D9S").unwrap(), "-12454.8");
        assert_eq!(parse("12345", "999").unwrap(), "123");
        assert_eq!(parse("12-", "99").unwrap(), "12");
        assert_eq!(parse("-12", "99").unwrap(), "-12");
        assert_eq!(parse("12-", "99MI").unwrap(), "-12");
        assert_eq!(parse("<12>", "99").unwrap(), "12");
        assert_eq!(parse("<12>", "99PR").unwrap(), "-12");
        assert_eq!(parse("$1,234.50", "9,999.99").unwrap(), "1234.50");
        assert_eq!(parse("$12,454.8", "L99G999D9").unwrap(), "12454.8");
        assert_eq!(parse("x", "9").unwrap_err().sqlstate(), "22P02");
        assert_eq!(parse("1", "9EEEE").unwrap_err().sqlstate(), "0A000");
    }
}
