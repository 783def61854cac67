//! Short new ids.

use crate::env::system::Host;

/// A random id, long enough that it is probably free among so many issues.
pub(crate) fn draw_id(prefix: &str, issues: usize, host: &dyn Host) -> String {
    format!(
        "{prefix}-{}",
        random_digits(id_digits(issues), host.random())
    )
}

/// So many random characters that at most one draw in 64 hits one of `issues` ids.
fn id_digits(issues: usize) -> u32 {
    const DIGITS_MIN: u32 = 3;
    const DIGITS_MAX: u32 = 12;
    let room = (issues as u64).saturating_mul(64);
    (DIGITS_MIN..DIGITS_MAX)
        .find(|digits| 36_u64.pow(*digits) >= room)
        .unwrap_or(DIGITS_MAX)
}

fn random_digits(count: u32, mut draw: u64) -> String {
    let digit = |_| {
        let digit = u32::try_from(draw % 36).unwrap_or(0);
        draw /= 36;
        char::from_digit(digit, 36).unwrap_or('0')
    };
    (0..count).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_with_the_number_of_issues_and_stay_short() {
        assert_eq!([0, 700, 26_000, 900_000].map(id_digits), [3, 3, 4, 5]);
        assert_eq!(id_digits(usize::MAX), 12);
        for digits in 3..=12 {
            assert_eq!(random_digits(digits, u64::MAX).len(), digits as usize);
        }
    }
}
