//! Times, sizes and rates as people read them: three digits and a unit.

/// `812 ns`, `4.91 us`, `12.3 ms`, `1.20 s`.
pub(crate) fn nanoseconds(nanoseconds: u64) -> String {
    scaled(nanoseconds as f64, 1000.0, &["ns", "us", "ms", "s"])
}

/// `64 B`, `4 KiB`, `1.17 GiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// `312`, `8.1 k`, `1.02 M`.
pub(crate) fn count(count: f64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G"]).trim_end().to_string()
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        value if value.fract() == 0.0 || value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(nanoseconds(812), "812 ns");
        assert_eq!(nanoseconds(4_913), "4.91 us");
        assert_eq!(nanoseconds(123_456_789), "123 ms");
        assert_eq!(bytes(4096.0), "4 KiB");
        assert_eq!(bytes(1_258_291_200.0), "1.17 GiB");
        assert_eq!(count(1_020_000.0), "1.02 M");
        assert_eq!(count(7.0), "7");
    }
}
