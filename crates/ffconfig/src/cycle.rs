//! Cycles in a graph of parents.

/// The cycles of the graph in which `parents[n]` are the parents of `n`: each as the nodes from child to
/// parent, the smallest first. No node is in two of them: overlapping cycles are found one after the
/// other, as they are mended. Without recursion, for the depth is the author's.
pub(crate) fn cycles(parents: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut left: Vec<bool> = vec![true; parents.len()];
    let mut cycles = Vec::new();
    loop {
        trim(parents, &mut left);
        let Some(start) = left.iter().position(|left| *left) else { return cycles };
        let mut cycle = walk(parents, &left, start);
        for node in &cycle {
            left[*node] = false;
        }
        if let Some(smallest) = (0..cycle.len()).min_by_key(|at| cycle[*at]) {
            cycle.rotate_left(smallest);
        }
        cycles.push(cycle);
    }
}

/// Takes out every node that has no parent left, until each has one.
fn trim(parents: &[Vec<usize>], left: &mut [bool]) {
    let mut open: Vec<usize> = vec![0; parents.len()];
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    for (node, parents) in parents.iter().enumerate().filter(|(node, _)| left[*node]) {
        for parent in parents.iter().filter(|parent| left[**parent]) {
            open[node] += 1;
            children[*parent].push(node);
        }
    }
    let mut free: Vec<usize> = (0..parents.len()).filter(|node| left[*node] && open[*node] == 0).collect();
    while let Some(node) = free.pop() {
        left[node] = false;
        for child in &children[node] {
            open[*child] -= 1;
            if open[*child] == 0 {
                free.push(*child);
            }
        }
    }
}

/// From parent to parent until a node comes again. Every node that is left has a parent that is left.
fn walk(parents: &[Vec<usize>], left: &[bool], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    let mut visited: Vec<Option<usize>> = vec![None; parents.len()];
    let mut node = start;
    loop {
        visited[node] = Some(path.len() - 1);
        let Some(parent) = parents[node].iter().copied().find(|parent| left[*parent]) else { return path };
        if let Some(from) = visited[parent] {
            return path.split_off(from);
        }
        path.push(parent);
        node = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cycle_is_found_and_nothing_else() {
        assert_eq!(cycles(&[vec![], vec![0], vec![0, 1]]), Vec::<Vec<usize>>::new());
        assert_eq!(cycles(&[vec![0]]), [[0]]);
        assert_eq!(cycles(&[vec![2], vec![0], vec![1], vec![0]]), [[0, 2, 1]]);
        assert_eq!(cycles(&[vec![1], vec![0], vec![3, 0], vec![2]]), [[0, 1], [2, 3]]);
    }

    #[test]
    fn a_long_chain_does_not_overflow_the_stack() {
        let chain: Vec<Vec<usize>> =
            (0..100_000).map(|n| if n == 0 { vec![] } else { vec![n - 1] }).collect();
        assert!(cycles(&chain).is_empty());
    }
}
