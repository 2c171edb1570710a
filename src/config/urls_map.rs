//! Names and their URLs, as `--initial-cluster` says them (etcd `types.URLsMap`).

use super::Url;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Members by name, each with its peer URLs, which are sorted. Prints as `name=URL,name=URL`, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlsMap(BTreeMap<String, Vec<Url>>);

impl UrlsMap {
    /// Reads `name=URL,name=URL`; a name may stand more than once (etcd `types.NewURLsMap`).
    ///
    /// # Errors
    /// That of the first URL that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut map: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(name.to_owned()).or_default().push(Url::parse(url)?);
        }
        Ok(map.into_iter().map(|(name, urls)| (name, sorted(urls))).collect())
    }

    /// One member and its URLs.
    pub fn one(name: &str, urls: &[Url]) -> Self {
        [(name.to_owned(), sorted(urls.to_vec()))].into_iter().collect()
    }

    /// The URLs of a member, if it is here.
    pub fn get(&self, name: &str) -> Option<&[Url]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The members by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Url])> {
        self.0.iter().map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// The URLs of all members but this one, sorted.
    pub fn urls_but_of(&self, name: &str) -> Vec<Url> {
        let others = self.0.iter().filter(|(other, _)| *other != name);
        sorted(others.flat_map(|(_, urls)| urls.iter().cloned()).collect())
    }

    /// Whether a URL stands twice, in one member or in two (etcd `CheckDuplicateURL`).
    pub fn has_duplicate(&self) -> bool {
        let mut seen = BTreeSet::new();
        !self.0.values().flatten().all(|url| seen.insert(url.as_str()))
    }
}

impl FromIterator<(String, Vec<Url>)> for UrlsMap {
    fn from_iter<I: IntoIterator<Item = (String, Vec<Url>)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Display for UrlsMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url)));
        let mut pairs: Vec<String> = pairs.map(|(name, url)| format!("{name}={url}")).collect();
        pairs.sort();
        f.write_str(&pairs.join(","))
    }
}

fn sorted(mut urls: Vec<Url>) -> Vec<Url> {
    urls.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_printed_and_knows_what_stands_twice() {
        let map = UrlsMap::parse("b=http://b:1,a=http://a:2,,a=http://a:1").expect("it is a map");
        assert_eq!(map.to_string(), "a=http://a:1,a=http://a:2,b=http://b:1");
        assert_eq!(map.get("a").expect("it is there")[0].as_str(), "http://a:1");
        assert_eq!((map.get("c"), map.has_duplicate()), (None, false));
        let others: Vec<_> = map.urls_but_of("b").iter().map(Url::to_string).collect();
        assert_eq!(others, ["http://a:1", "http://a:2"]);
        assert!(UrlsMap::parse("a=http://a:1,b=http://a:1").expect("a map").has_duplicate());
        assert_eq!(UrlsMap::parse("").expect("an empty map"), UrlsMap::default());
        assert_eq!(
            UrlsMap::parse("a").unwrap_err(),
            "URL scheme must be http, https, unix, or unixs: "
        );
    }
}
