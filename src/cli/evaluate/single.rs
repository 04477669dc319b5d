//! What a classifier of exclusive classes comes to: accuracy, and what it takes for what.

use atrous::Result;
use atrous::eval::metrics::{Interval, bootstrap};
use atrous::report::evaluation::Evaluation;
use std::fmt::Write;

/// Resamples of the bootstrap: the 2.5th percentile of 1000 rests on 25 of them.
const REPEATS: usize = 1000;
/// As many classes' columns fit into a terminal.
const COLUMNS: usize = 12;
/// Of more classes so many confusions are listed.
const LISTED: usize = 10;

/// Accuracy beside that of always saying the commonest class, and the confusion matrix.
pub fn words(evaluation: &Evaluation, kind: &str, seed: u64) -> Result<String> {
    let right: Vec<bool> = evaluation.samples.iter().map(|s| s.truth == s.predicted).collect();
    let share = |indices: &[usize]| {
        indices.iter().filter(|&&i| right[i]).count() as f64 / indices.len().max(1) as f64
    };
    let Interval { low, high, .. } = bootstrap(right.len(), REPEATS, seed, share)?;
    let all: Vec<usize> = (0..right.len()).collect();
    let mut text = format!("accuracy on {} {kind}\n", right.len());
    let accuracy = share(&all);
    let _ = writeln!(
        text,
        "  network                        {accuracy:.3}   (95 % bootstrap {low:.3} to {high:.3})"
    );
    if let Some(commonest) = evaluation.classes.iter().max_by_key(|class| class.support) {
        let chance = commonest.support as f64 / right.len().max(1) as f64;
        let control = format!("control: always `{}`", commonest.name);
        let _ = writeln!(text, "  {control:<30} {chance:.3}");
        let _ = writeln!(
            text,
            "  the lower bound is {} the control",
            if low > chance { "above" } else { "NOT above" }
        );
    }
    for (name, value) in evaluation.scores.iter().skip(1) {
        let _ = writeln!(text, "  {name:<30} {value:.3}");
    }
    text += &match evaluation.classes.len() <= COLUMNS {
        true => matrix(evaluation),
        false => commonest(evaluation),
    };
    Ok(text.trim_end().to_owned())
}

/// A letter a column, as there is no room for names.
fn letter(column: usize) -> char {
    (b'a' + column as u8) as char
}

fn matrix(evaluation: &Evaluation) -> String {
    let n = evaluation.classes.len();
    let head: String = (0..n).map(|column| format!("{:>5}", letter(column))).collect();
    let mut text = format!("  taken for{head}   recall\n");
    for (i, (class, counts)) in evaluation.classes.iter().zip(&evaluation.confusion).enumerate() {
        let cells: String = counts.iter().map(|count| format!("{count:>5}")).collect();
        let recall = class.recall().map_or("    -".into(), |recall| format!("{recall:.3}"));
        let _ = writeln!(text, "           {cells}    {recall}  {} {}", letter(i), class.name);
    }
    text
}

fn commonest(evaluation: &Evaluation) -> String {
    let name = |class: usize| &evaluation.classes[class].name;
    let mut pairs: Vec<(u64, usize, usize)> = Vec::new();
    for (i, counts) in evaluation.confusion.iter().enumerate() {
        let others = counts.iter().enumerate().filter(|&(j, &count)| j != i && count > 0);
        pairs.extend(others.map(|(j, &count)| (count, i, j)));
    }
    pairs.sort_by_key(|&(count, i, j)| (std::cmp::Reverse(count), i, j));
    let mut text = format!("  the commonest mistakes, of {} kinds\n", pairs.len());
    for (count, truth, taken) in pairs.into_iter().take(LISTED) {
        let _ = writeln!(text, "{count:>6} × {} taken for {}", name(truth), name(taken));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use atrous::report::evaluation::{ClassScores, Sample};

    fn evaluation(names: &[&str], pairs: &[(usize, usize)]) -> Evaluation {
        let mut confusion = vec![vec![0; names.len()]; names.len()];
        pairs.iter().for_each(|&(truth, said)| confusion[truth][said] += 1);
        let sample = |&(truth, said): &(usize, usize)| Sample {
            truth: vec![names[truth].into()],
            predicted: vec![names[said].into()],
            ..Sample::default()
        };
        let class = |(i, name): (usize, &&str)| ClassScores {
            name: name.to_string(),
            support: confusion[i].iter().sum(),
            true_positives: confusion[i][i],
            false_negatives: confusion[i].iter().sum::<u64>() - confusion[i][i],
            ..ClassScores::default()
        };
        Evaluation {
            classes: names.iter().enumerate().map(class).collect(),
            samples: pairs.iter().map(sample).collect(),
            confusion,
            ..Evaluation::default()
        }
    }

    #[test]
    fn the_matrix_has_the_truth_in_rows_and_what_was_said_in_columns() {
        let text = words(&evaluation(&["cat", "dog"], &[(0, 0), (0, 1), (0, 0), (1, 1)]), "pictures", 1)
            .unwrap();
        assert!(text.contains("network                        0.750"), "{text}");
        assert!(text.contains("control: always `cat`          0.750"), "{text}");
        let rows: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(rows[1].split_whitespace().collect::<Vec<_>>(), ["2", "1", "0.667", "a", "cat"]);
        assert_eq!(rows[0].split_whitespace().collect::<Vec<_>>(), ["0", "1", "1.000", "b", "dog"]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn of_many_classes_the_commonest_mistakes_are_listed() {
        let names: Vec<String> = (0..30).map(|i| format!("class{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = words(&evaluation(&names, &[(3, 7), (3, 7), (8, 8), (9, 1)]), "pictures", 1).unwrap();
        assert!(
            text.contains("2 × class3 taken for class7\n     1 × class9 taken for class1"),
            "{text}"
        );
    }
}
