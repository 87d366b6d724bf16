//! Changes: where and how a tree differs from an older one, said in few words where a list has grown or shrunk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Tree;

/// Where and how a value differs from an older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The names and places on the way there: in the older value for what was removed, otherwise in the
    /// newer one.
    pub path: Vec<String>,
    /// How.
    pub kind: ChangeKind,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Tree>,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Tree>,
}

/// How a value differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// Adds what differs between the values at a path.
pub(super) fn compare(path: &mut Vec<String>, old: &Tree, new: &Tree, changes: &mut Vec<Change>) {
    match (old, new) {
        _ if old == new => {}
        (Tree::Fields(olds), Tree::Fields(news)) if old.name() == new.name() => {
            for (name, was) in olds {
                path.push(name.clone());
                match news.iter().find(|(other, _)| other == name) {
                    Some((_, is)) => compare(path, was, is, changes),
                    None => changes.push(removed(path, was)),
                }
                path.pop();
            }
            for (name, is) in news {
                if olds.iter().all(|(other, _)| other != name) {
                    path.push(name.clone());
                    changes.push(added(path, is));
                    path.pop();
                }
            }
        }
        (Tree::List(olds), Tree::List(news)) => compare_lists(path, olds, news, changes),
        _ => changes.push(Change {
            path: path.clone(),
            kind: ChangeKind::Changed,
            before: Some(old.clone()),
            after: Some(new.clone()),
        }),
    }
}

fn removed(path: &[String], was: &Tree) -> Change {
    let (path, kind) = (path.to_vec(), ChangeKind::Removed);
    Change { path, kind, before: Some(was.clone()), after: None }
}

fn added(path: &[String], is: &Tree) -> Change {
    let (path, kind) = (path.to_vec(), ChangeKind::Added);
    Change { path, kind, before: None, after: Some(is.clone()) }
}

/// Lists of one length are compared place by place, unless it takes fewer changes to say what was put in and what was
/// taken out. What both have then, in their order, is left alone.
fn compare_lists(path: &mut Vec<String>, olds: &[Tree], news: &[Tree], changes: &mut Vec<Change>) {
    let is_one_length = olds.len() == news.len();
    let differ = olds.iter().zip(news).filter(|(old, new)| old != new).count();
    if is_one_length && differ < FEW {
        return compare_places(path, olds, news, changes);
    }
    let (kept_old, kept_new) = in_both(olds, news);
    let gone = kept_old.iter().filter(|kept| !**kept).count();
    if is_one_length && differ <= 2 * gone {
        return compare_places(path, olds, news, changes);
    }
    for (place, old) in olds.iter().enumerate().filter(|(place, _)| !kept_old[*place]) {
        path.push(place.to_string());
        changes.push(removed(path, old));
        path.pop();
    }
    for (place, new) in news.iter().enumerate().filter(|(place, _)| !kept_new[*place]) {
        path.push(place.to_string());
        changes.push(added(path, new));
        path.pop();
    }
}

/// With fewer places that differ, nothing was put in and something else taken out.
const FEW: usize = 3;

fn compare_places(path: &mut Vec<String>, olds: &[Tree], news: &[Tree], changes: &mut Vec<Change>) {
    for (place, (old, new)) in olds.iter().zip(news).enumerate() {
        path.push(place.to_string());
        compare(path, old, new, changes);
        path.pop();
    }
}

/// Which elements of two lists belong to a longest common subsequence. What they begin and end with alike belongs
/// to one, so only what lies between is compared each with each.
fn in_both(olds: &[Tree], news: &[Tree]) -> (Vec<bool>, Vec<bool>) {
    let (mut kept_old, mut kept_new) = (vec![true; olds.len()], vec![true; news.len()]);
    let same = |(old, new): &(&Tree, &Tree)| old == new;
    let begin = olds.iter().zip(news).take_while(same).count();
    let ends = olds[begin..].iter().rev().zip(news[begin..].iter().rev());
    let end = ends.take_while(same).count();
    let (olds, news) = (&olds[begin..olds.len() - end], &news[begin..news.len() - end]);
    kept_old[begin..begin + olds.len()].fill(false);
    kept_new[begin..begin + news.len()].fill(false);
    // Each different value as a number, so that two are compared at once.
    let mut numbers = BTreeMap::new();
    let mut number = |tree| {
        let next = numbers.len();
        *numbers.entry(tree).or_insert(next)
    };
    let olds: Vec<usize> = olds.iter().map(&mut number).collect();
    let news: Vec<usize> = news.iter().map(&mut number).collect();
    let mut longest = vec![vec![0_u32; news.len() + 1]; olds.len() + 1];
    for (i, old) in olds.iter().enumerate().rev() {
        for (j, new) in news.iter().enumerate().rev() {
            longest[i][j] = if old == new {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < olds.len() && j < news.len() {
        if olds[i] == news[j] {
            (kept_old[begin + i], kept_new[begin + j]) = (true, true);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    (kept_old, kept_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_where_and_how() {
        let old = Tree::parse("S { a: 1, list: [x, y, z], same: T { b: 1 }, gone: 1 }");
        let new = Tree::parse("S { a: 2, list: [x, z, w, v], same: T { b: 1 }, new: 1 }");
        let told: Vec<_> = new
            .changes_since(&old)
            .into_iter()
            .map(|change| format!("{:?} {}", change.kind, change.path.join("/")))
            .collect();
        assert_eq!(
            told,
            [
                "Changed a",
                "Removed list/1",
                "Added list/2",
                "Added list/3",
                "Removed gone",
                "Added new"
            ]
        );
        assert!(new.changes_since(&new).is_empty());
    }

    #[test]
    fn what_was_put_in_and_taken_out_moves_nothing_else() {
        let told = |old: &str, new: &str| -> Vec<_> {
            let changes = Tree::parse(new).changes_since(&Tree::parse(old)).into_iter();
            changes.map(|change| format!("{:?} {}", change.kind, change.path.join("/"))).collect()
        };
        // One message has gone and another has come: of the rest, each has another place.
        assert_eq!(told("[b, c, d, e, f]", "[c, d, e, f, g]"), ["Removed 0", "Added 4"]);
        // Each of the nodes is another one now.
        let changed = ["Changed 0", "Changed 1", "Changed 2", "Changed 3"];
        assert_eq!(told("[a, b, c, d]", "[w, x, y, z]"), changed);
        assert_eq!(told("[a, b]", "[b, a]"), ["Changed 0", "Changed 1"]);
    }
}
