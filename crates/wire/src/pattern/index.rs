//! Many patterns at once.

use std::collections::HashMap;
use std::fmt;

use super::{Label, Pattern, glob_matches};
use crate::dns::Name;

/// Finds the patterns that match a name, without trying each.
///
/// It is a tree of labels, from the last to the first. A look-up goes through all branches that fit at the same time, one
/// label after the other, so that no number of `**` makes it try a label twice on one branch.
pub struct PatternIndex<T> {
    root: Node<T>,
    len: usize,
}

/// The patterns that end in the labels which lead here.
struct Node<T> {
    literals: HashMap<Box<str>, Self>,
    /// Behind `*`.
    any: Option<Box<Self>>,
    /// Behind `**`.
    deep: Option<Box<Self>>,
    /// Behind other wildcards.
    globs: Vec<(Box<str>, Self)>,
    /// The pattern that begins here.
    pattern: Option<Pattern>,
    /// What it was inserted with, the greatest first.
    values: Vec<T>,
}

/// A node that fits the labels so far.
struct Active<'a, T> {
    node: &'a Node<T>,
    /// Whether it lies behind `**`, which fits the next label as well.
    deep: bool,
    /// Whether only literals led here.
    literal: bool,
}

impl<T> PatternIndex<T> {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: Node::default(),
            len: 0,
        }
    }

    /// The number of pairs of a pattern and a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// What was inserted with a pattern that matches `name`: the most specific pattern first, and of equal ones the
    /// greatest value.
    #[must_use]
    pub fn matches(&self, name: &Name) -> Vec<(&Pattern, &T)> {
        let (mut active, mut next) = (Vec::with_capacity(8), Vec::with_capacity(8));
        activate(&mut active, &self.root, false, true);
        for label in name.labels().rev() {
            for at in &active {
                at.step(label, &mut next);
            }
            std::mem::swap(&mut active, &mut next);
            next.clear();
        }

        let mut found = Vec::new();
        for at in &active {
            found.extend(at.node.pattern.as_ref().map(|pattern| (pattern, at.node)));
            // `*.` in front of a domain matches the domain, too; there is no domain in front of which `*` stands alone.
            if at.literal && !name.is_root() {
                let any = at.node.any.as_deref();
                found.extend(any.and_then(|node| Some((node.pattern.as_ref()?, node))));
            }
        }
        found.sort_unstable_by_key(|(pattern, _)| *pattern);

        let pairs = found.into_iter().flat_map(|(pattern, node)| {
            let values = node.values.iter();
            values.map(move |value| (pattern, value))
        });
        pairs.collect()
    }
}

impl<T: Ord> PatternIndex<T> {
    /// Inserts `value` with `pattern`; no change if it was already.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut node = &mut self.root;
        for label in pattern.labels.iter().rev() {
            node = node.child_or_new(label);
        }
        node.pattern.get_or_insert_with(|| pattern.clone());
        if let Err(at) = node.position(&value) {
            node.values.insert(at, value);
            self.len += 1;
        }
    }

    /// Removes `value` with `pattern`; tells whether it was there.
    pub fn remove(&mut self, pattern: &Pattern, value: &T) -> bool {
        let removed = self.root.remove(&pattern.labels, value);
        self.len -= usize::from(removed);

        removed
    }
}

impl<'a, T> Active<'a, T> {
    /// Finds the nodes that fit one label more.
    fn step(&self, label: &str, next: &mut Vec<Self>) {
        if self.deep {
            activate(next, self.node, true, false);
        }
        if let Some(node) = self.node.literals.get(label) {
            activate(next, node, false, self.literal);
        }
        if let Some(node) = &self.node.any {
            activate(next, node, false, false);
        }
        for (glob, node) in &self.node.globs {
            if glob_matches(glob, label) {
                activate(next, node, false, false);
            }
        }
    }
}

/// Adds a node, and those that `**` for no label leads to.
fn activate<'a, T>(nodes: &mut Vec<Active<'a, T>>, node: &'a Node<T>, deep: bool, literal: bool) {
    // Only `**` can lead to a node in two ways: by one label more, and by none.
    if deep && nodes.iter().any(|at| std::ptr::eq(at.node, node)) {
        return;
    }
    nodes.push(Active {
        node,
        deep,
        literal,
    });

    let mut below = node.deep.as_deref();
    while let Some(node) = below {
        if nodes.iter().any(|at| std::ptr::eq(at.node, node)) {
            return;
        }
        nodes.push(Active {
            node,
            deep: true,
            literal: false,
        });
        below = node.deep.as_deref();
    }
}

impl<T> Node<T> {
    fn child_or_new(&mut self, label: &Label) -> &mut Self {
        match label {
            Label::Literal(text) => self.literals.entry(text.clone()).or_default(),
            Label::Any => self.any.get_or_insert_default(),
            Label::Deep => self.deep.get_or_insert_default(),
            Label::Glob(text) => {
                let known = self.globs.iter().position(|(glob, _)| glob == text);
                let at = known.unwrap_or(self.globs.len());
                if known.is_none() {
                    self.globs.push((text.clone(), Self::default()));
                }
                #[expect(clippy::indexing_slicing, reason = "it is known, or was just added")]
                &mut self.globs[at].1
            }
        }
    }

    fn is_unused(&self) -> bool {
        self.values.is_empty()
            && self.literals.is_empty()
            && self.any.is_none()
            && self.deep.is_none()
            && self.globs.is_empty()
    }
}

impl<T: Ord> Node<T> {
    /// Where `value` is, or belongs.
    fn position(&self, value: &T) -> Result<usize, usize> {
        self.values.binary_search_by(|there| value.cmp(there))
    }

    /// Removes what `labels` lead to from here, and the nodes that nothing needs afterwards.
    fn remove(&mut self, labels: &[Label], value: &T) -> bool {
        let Some((label, before)) = labels.split_last() else {
            let Ok(at) = self.position(value) else {
                return false;
            };
            self.values.remove(at);
            if self.values.is_empty() {
                self.pattern = None;
            }
            return true;
        };

        let remove = |node: &mut Self| (node.remove(before, value), node.is_unused());
        match label {
            Label::Literal(text) => {
                let Some(node) = self.literals.get_mut(text) else {
                    return false;
                };
                let (removed, unused) = remove(node);
                if unused {
                    self.literals.remove(text);
                }
                removed
            }
            Label::Any => remove_below(&mut self.any, remove),
            Label::Deep => remove_below(&mut self.deep, remove),
            Label::Glob(text) => {
                let Some(at) = self.globs.iter().position(|(glob, _)| glob == text) else {
                    return false;
                };
                let Some((_, node)) = self.globs.get_mut(at) else {
                    return false;
                };
                let (removed, unused) = remove(node);
                if unused {
                    self.globs.swap_remove(at);
                }
                removed
            }
        }
    }
}

fn remove_below<T>(
    slot: &mut Option<Box<Node<T>>>,
    remove: impl FnOnce(&mut Node<T>) -> (bool, bool),
) -> bool {
    let Some(node) = slot else {
        return false;
    };
    let (removed, unused) = remove(node);
    if unused {
        *slot = None;
    }

    removed
}

#[cfg(test)]
impl<T> PatternIndex<T> {
    /// Whether no node is left that nothing needs.
    pub(super) fn is_pruned(&self) -> bool {
        self.root.is_unused()
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::new(),
            any: None,
            deep: None,
            globs: Vec::new(),
            pattern: None,
            values: Vec::new(),
        }
    }
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for PatternIndex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatternIndex({} pairs)", self.len)
    }
}
