//! Flags of a command line: each is taken by its name, and what nobody took is refused by its.

use std::{
    collections::VecDeque,
    fmt::{Debug, Display},
    str::FromStr,
    time::Duration,
};

/// What was given and has not been taken yet.
#[derive(Clone, Debug)]
pub struct Flags(VecDeque<String>);

impl Flags {
    /// Of the arguments behind the program's name. `--flag=value` is `--flag value`.
    pub fn new(given: impl Iterator<Item = String>) -> Self {
        Self(given.flat_map(split).collect())
    }

    /// The first argument, which says what to do.
    pub fn command(&mut self) -> Option<String> {
        self.0.pop_front_if(|first| !first.starts_with("--"))
    }

    /// Whether a flag without a value is given.
    pub fn switch(&mut self, flag: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|given| given != flag);
        before != self.0.len()
    }

    /// None of these flags is given.
    ///
    /// # Errors
    /// The first that is, and why it cannot be.
    pub fn refuse(&self, flags: &[&str], why: &str) -> Result<(), String> {
        match self.0.iter().find(|given| flags.contains(&given.as_str())) {
            Some(flag) => Err(format!("{flag}: {why}")),
            None => Ok(()),
        }
    }

    /// A flag's value as it stands; of several the last counts.
    ///
    /// # Errors
    /// A flag without a value.
    pub fn text(&mut self, flag: &str) -> Result<Option<String>, String> {
        let mut value = None;
        while let Some(at) = self.0.iter().position(|given| given == flag) {
            self.0.remove(at);
            let next = self.0.remove(at).filter(|next| !next.starts_with("--"));
            value = Some(next.ok_or_else(|| format!("{flag} wants a value"))?);
        }
        Ok(value)
    }

    /// A flag's value.
    ///
    /// # Errors
    /// A flag without a value, and one whose value is not as it must be.
    pub fn value<T: FromStr<Err: Display>>(&mut self, flag: &str) -> Result<Option<T>, String> {
        self.text(flag)?.map(|text| parse(flag, &text)).transpose()
    }

    /// A number, `or` if none is given.
    ///
    /// # Errors
    /// As [`Flags::value`], and a number below `min`.
    pub fn number<N>(&mut self, flag: &str, or: N, min: N) -> Result<N, String>
    where
        N: FromStr<Err: Display> + PartialOrd + Display,
    {
        self.at_least(flag, min).map(|number| number.unwrap_or(or))
    }

    /// A number, if one is given.
    ///
    /// # Errors
    /// As [`Flags::number`].
    pub fn at_least<N>(&mut self, flag: &str, min: N) -> Result<Option<N>, String>
    where
        N: FromStr<Err: Display> + PartialOrd + Display,
    {
        match self.value(flag)? {
            Some(number) if number < min => Err(format!("{flag} {number}: at least {min}")),
            number => Ok(number),
        }
    }

    /// Whole seconds, at least 1.
    ///
    /// # Errors
    /// As [`Flags::number`].
    pub fn seconds(&mut self, flag: &str, or: u64) -> Result<Duration, String> {
        self.number(flag, or, 1).map(Duration::from_secs)
    }

    /// Values between commas; none if the flag is not given.
    ///
    /// # Errors
    /// As [`Flags::value`], of each of them.
    pub fn list<T: FromStr<Err: Display>>(&mut self, flag: &str) -> Result<Vec<T>, String> {
        let text = self.text(flag)?;
        let all = text.as_deref().into_iter().flat_map(|text| text.split(','));
        all.map(|one| parse(flag, one)).collect()
    }

    /// The next argument that is no flag. Only once all flags with values are taken.
    pub fn operand(&mut self) -> Option<String> {
        let at = self.0.iter().position(|given| !given.starts_with("--"))?;
        self.0.remove(at)
    }

    /// What stands behind a `--` of its own, for somebody else; none if there is none.
    pub fn behind_dashes(&mut self) -> Vec<String> {
        let at = self.0.iter().position(|given| given == "--");
        at.map_or_else(Vec::new, |at| self.0.split_off(at).into_iter().skip(1).collect())
    }

    /// All is taken.
    ///
    /// # Errors
    /// The first argument that nobody took.
    pub fn finish(self) -> Result<(), String> {
        match self.0.front() {
            None => Ok(()),
            Some(flag) if flag.starts_with("--") => Err(format!("unknown flag {flag}")),
            Some(other) => Err(format!("nothing is expected where {other:?} stands")),
        }
    }
}

fn split(given: String) -> Vec<String> {
    match given.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.into(), value.into()],
        _ => vec![given],
    }
}

fn parse<T: FromStr<Err: Display>>(flag: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{flag} {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        Flags::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_taken_by_name_in_any_order() {
        let mut given = flags("put --keys 7 DIR --quiet --keys=9 --pid 1,2");
        assert_eq!(given.command().as_deref(), Some("put"));
        assert!(given.switch("--quiet") && !given.switch("--loud"));
        assert_eq!(given.number("--keys", 1, 1), Ok(9), "the last one counts");
        assert_eq!(given.number("--streams", 3, 1), Ok(3));
        assert_eq!(given.list::<u32>("--pid"), Ok(vec![1, 2]));
        assert_eq!(given.operand().as_deref(), Some("DIR"));
        assert_eq!(given.finish(), Ok(()));
    }

    #[test]
    fn what_stands_behind_two_dashes_is_for_somebody_else() {
        let mut given = flags("compare a b -- put --keys=7 -- x");
        assert_eq!(given.behind_dashes(), ["put", "--keys", "7", "--", "x"]);
        assert!(given.behind_dashes().is_empty());
        assert_eq!(given.number("--keys", 1, 1), Ok(1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let number = |line: &str| flags(line).number::<u64>("--keys", 1, 1).unwrap_err();
        assert_eq!(number("--keys"), "--keys wants a value");
        assert_eq!(number("--keys --quiet"), "--keys wants a value");
        assert_eq!(number("--keys x"), "--keys x: invalid digit found in string");
        assert_eq!(number("--keys 0"), "--keys 0: at least 1");
        let refused = flags("put --keys=7").refuse(&["--key", "--keys"], "not here");
        assert_eq!(refused.unwrap_err(), "--keys: not here");
        assert_eq!(flags("put --keys 7").refuse(&["--key"], "not here"), Ok(()));
        assert_eq!(flags("--key 1").finish().unwrap_err(), "unknown flag --key");
        assert_eq!(flags("a").finish().unwrap_err(), "nothing is expected where \"a\" stands");
    }
}
