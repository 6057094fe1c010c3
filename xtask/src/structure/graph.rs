//! A graph of names, and its cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Names and the names that each of them uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Graph(pub(super) BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Returns the groups of names that use each other in a circle.
    pub(crate) fn cycles(&self) -> Vec<Vec<&str>> {
        let mut search = Search { graph: self, order: BTreeMap::new(), path: Vec::new(), cycles: Vec::new() };
        for name in self.0.keys() {
            if !search.order.contains_key(name.as_str()) {
                search.visit(name);
            }
        }
        search.cycles
    }
}

/// One line per name: `engine → plan, source, units`.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, used) in &self.0 {
            let used: Vec<&str> = used.iter().map(String::as_str).collect();
            match &used[..] {
                [] => writeln!(f, "{name}")?,
                used => writeln!(f, "{name} → {}", used.join(", "))?,
            }
        }
        Ok(())
    }
}

/// Tarjan's search for strongly connected components.
struct Search<'g> {
    graph: &'g Graph,
    /// When each name was visited first.
    order: BTreeMap<&'g str, usize>,
    /// The names whose component is not complete.
    path: Vec<&'g str>,
    cycles: Vec<Vec<&'g str>>,
}

impl<'g> Search<'g> {
    /// Returns the earliest name on the path that `name` reaches.
    fn visit(&mut self, name: &'g str) -> usize {
        let order = self.order.len();
        self.order.insert(name, order);
        self.path.push(name);
        let mut earliest = order;
        for used in self.graph.0.get(name).into_iter().flatten() {
            match self.order.get(used.as_str()) {
                None => earliest = earliest.min(self.visit(used)),
                Some(&seen) if self.path.contains(&used.as_str()) => earliest = earliest.min(seen),
                Some(_) => {}
            }
        }
        if earliest == order {
            let start = self.path.iter().position(|&on_path| on_path == name).unwrap_or(0);
            let component = self.path.split_off(start);
            if component.len() > 1 {
                self.cycles.push(component);
            }
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let used = |used: &[&str]| used.iter().map(|&name| name.to_owned()).collect();
        Graph(edges.iter().map(|(name, names)| ((*name).to_owned(), used(names))).collect())
    }

    #[test]
    fn a_cycle_is_found_and_a_diamond_is_none() {
        let diamond = graph(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]);
        assert!(diamond.cycles().is_empty());
        let circle = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])]);
        assert_eq!(circle.cycles(), [["b", "c"]]);
    }

    #[test]
    fn each_name_has_a_line() {
        assert_eq!(graph(&[("a", &["b", "c"]), ("b", &[])]).to_string(), "a → b, c\nb\n");
    }
}
