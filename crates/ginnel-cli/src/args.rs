//! Words of the command line that several verbs share: times, sizes, modes, ranges, which message.

use std::time::Duration;

use ginnel::Deadline;
use ginnel::endpoint::Range;
use ginnel::message::Select;

/// How long each call may wait.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Wait {
    /// Give up after this long: 500ms, 5s, 2m; a plain number is seconds, 0 does not wait at all.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

impl Wait {
    /// The deadline of a call that begins now.
    pub(crate) fn deadline(self) -> Deadline {
        match self.timeout {
            Some(Duration::ZERO) => Deadline::NOW,
            timeout => Deadline::from(timeout),
        }
    }
}

/// `500ms`, `5s`, `1.5s`, `2m`, `1h`, `200us`; a plain number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let seconds_per_unit = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "ns" => 1e-9,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time is a number with ms, s, m or h: 500ms, 5s, 2m".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a time is a number and a unit: 500ms, 5s, 2m")?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|error| error.to_string())
}

/// `4096`, `64KiB`, `1M`: bytes, in powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("a size is a number of bytes, or with KiB, MiB or GiB: 4096, 64KiB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a size is a whole number: 4096, 64KiB, 1MiB")?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than a 64-bit number of bytes".into())
}

/// Permission bits as `chmod(1)` takes them: `0660`.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode is three octal digits: 0660, 600".into()),
    }
}

/// `OFFSET+LENGTH`, each a size; a length of 0 is to the end.
pub(crate) fn range(text: &str) -> Result<Range, String> {
    let (offset, len) = text.split_once('+').ok_or("a range is OFFSET+LENGTH: 0+100, 4096+0 (to the end)")?;
    Ok(Range { offset: size(offset)?, len: size(len)? })
}

/// Which message of a System V queue: `any`, `3`, `<=3` or `-3`, `!3`.
pub(crate) fn select(text: &str) -> Result<Select, String> {
    let number = |digits: &str| match digits.parse::<i64>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a selection is any, 3 (that type), <=3 or -3 (the lowest up to it), !3 (any other)"),
    };
    Ok(match text {
        "any" | "0" => Select::Any,
        _ => {
            if let Some(digits) = text.strip_prefix("<=").or_else(|| text.strip_prefix('-')) {
                Select::UpTo(number(digits)?)
            } else if let Some(digits) = text.strip_prefix('!') {
                Select::Except(number(digits)?)
            } else {
                Select::Type(number(text)?)
            }
        }
    })
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("200 us"), Ok(Duration::from_micros(200)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for nonsense in ["", "s", "-1", "5 parsecs", "1.2.3s", "1e400s", "nan", "inf"] {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1m"), Ok(1 << 20));
        assert_eq!(size("0"), Ok(0));
        for nonsense in ["", "-1", "1.5K", "KiB", "1 furlong", "99999999999T"] {
            assert!(size(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("600"), Ok(0o600));
        assert!(mode("888").is_err());
        assert!(mode("1777").is_err());
    }

    #[test]
    fn ranges_and_selections() {
        assert_eq!(range("4K+512"), Ok(Range { offset: 4096, len: 512 }));
        assert!(range("4096").is_err());
        assert_eq!(select("any"), Ok(Select::Any));
        assert_eq!(select("3"), Ok(Select::Type(3)));
        assert_eq!(select("-3"), Ok(Select::UpTo(3)));
        assert_eq!(select("<=3"), Ok(Select::UpTo(3)));
        assert_eq!(select("!3"), Ok(Select::Except(3)));
        for nonsense in ["", "!", "!0", "<=x", "--3", "-0"] {
            assert!(select(nonsense).is_err(), "{nonsense}");
        }
    }
}
