//! What Go's `%T %v` says of a value that came inside an interface.

use std::fmt::Write;

use anyhow::Result;
use outrigger_plugin::gob::{Interface, Named, Time, Value};

use super::Shape;

/// The name of the value's type and its text.
///
/// # Errors
/// The value is not what its name says.
pub fn describe(value: &Interface) -> Result<String> {
    let Some(name) = value.name() else {
        return Ok("<nil> <nil>".to_owned());
    };
    let mut text = format!("{name} ");
    match name {
        Time::NAME => {
            let time: Option<Time> = value.get()?;
            text.push_str(&moment(&time.unwrap_or(Time::ZERO)));
        }
        _ => interface(&mut text, value)?,
    }
    Ok(text)
}

fn interface(text: &mut String, value: &Interface) -> Result<()> {
    match value.name() {
        None => text.push_str("<nil>"),
        Some(Shape::NAME) => {
            let read: Option<Shape> = value.get()?;
            shape(text, &read.unwrap_or_default())?;
        }
        Some(_) => {
            if let Some(value) = value.value()? {
                any(text, &value)?;
            }
        }
    }
    Ok(())
}

fn any(text: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Bool(value) => write!(text, "{value}")?,
        Value::Int(value) => write!(text, "{value}")?,
        Value::Uint(value) => write!(text, "{value}")?,
        Value::Float(value) => text.push_str(&float(*value)),
        Value::Complex(value) => {
            let (real, imaginary) = (float(value.real), float(value.imaginary));
            let sign = if imaginary.starts_with(['-', '+']) {
                ""
            } else {
                "+"
            };
            write!(text, "({real}{sign}{imaginary}i)")?;
        }
        Value::Bytes(bytes) => {
            listed(text, bytes.iter(), |text, byte| Ok(write!(text, "{byte}")?))?
        }
        Value::String(value) => text.push_str(&value.to_string_lossy()),
        Value::Array(list) | Value::Slice(list) => listed(text, list.items.iter(), any)?,
        Value::Map(map) => {
            let mut entries: Vec<_> = map.entries.iter().collect();
            entries.sort_by(|(a, _), (b, _)| order(a, b));
            text.push_str("map");
            listed(text, entries.into_iter(), |text, (key, value)| {
                any(text, key)?;
                text.push(':');
                any(text, value)
            })?;
        }
        Value::Struct(fields) => {
            text.push('{');
            for (number, (_, field)) in fields.iter().enumerate() {
                text.push_str(if number == 0 { "" } else { " " });
                match field {
                    Some(field) => any(text, field)?,
                    None => text.push_str("<zero>"),
                }
            }
            text.push('}');
        }
        Value::Interface(value) => interface(text, value)?,
        Value::Opaque(value) => match value.to_time() {
            Some(time) => text.push_str(&moment(&time)),
            None => write!(text, "{}", value.ty)?,
        },
    }
    Ok(())
}

fn listed<T>(
    text: &mut String,
    items: impl Iterator<Item = T>,
    mut each: impl FnMut(&mut String, T) -> Result<()>,
) -> Result<()> {
    text.push('[');
    for (number, item) in items.enumerate() {
        text.push_str(if number == 0 { "" } else { " " });
        each(text, item)?;
    }
    text.push(']');
    Ok(())
}

/// Go prints maps by their keys.
fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    }
}

/// The shortest text, with an exponent where Go has one.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value != 0.0 && !(-4..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

fn shape(text: &mut String, shape: &Shape) -> Result<()> {
    write!(text, "{{{} {} ", shape.name, shape.sides)?;
    listed(text, shape.tags.iter(), |text, tag| {
        text.push_str(tag);
        Ok(())
    })?;
    text.push(' ');
    match &shape.inner {
        None => text.push_str("<nil>"),
        Some(inner) => {
            text.push('&');
            self::shape(text, inner)?;
        }
    }
    write!(text, " {} map", moment(&shape.at))?;
    let extra = shape.extra.iter().flatten();
    listed(text, extra, |text, (key, value)| {
        write!(text, "{key}:")?;
        interface(text, value)
    })?;
    text.push('}');
    Ok(())
}

/// RFC 3339 in UTC, with as many digits of a second as there are.
fn moment(time: &Time) -> String {
    const DAY: i64 = 86_400;
    let seconds = time.unix_seconds();
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if time.nanoseconds() != 0 {
        let digits = format!(".{:09}", time.nanoseconds());
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The date of a day counted from 1970-01-01, in the calendar of today.
fn date(day: i64) -> (i64, i64, i64) {
    // Counted from the first of March of a year divisible by 400, leap days are last.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_described_as_go_does() {
        let same = |value: Interface, text: &str| {
            assert_eq!(describe(&value).expect("a text"), text);
        };
        same(Interface::nil(), "<nil> <nil>");
        same(Interface::from(1.5), "float64 1.5");
        same(Interface::from(-1.25e300), "float64 -1.25e+300");
        same(Interface::from(1e-7), "float64 1e-07");
        same(Interface::from(f64::INFINITY), "float64 +Inf");
        same(Interface::from(vec![1_u8, 2, 255]), "[]uint8 [1 2 255]");
        let at = Time::from_unix(1_770_091_446, 789_000_000, None).expect("a time");
        let at = Interface::of(&at).expect("an interface");
        same(at, "time.Time 2026-02-03T04:04:06.789Z");
        let none = Interface::of(&Shape::default()).expect("an interface");
        same(none, "main.Shape { 0 [] <nil> 0001-01-01T00:00:00Z map[]}");
    }
}
