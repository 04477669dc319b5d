use super::*;

fn table(rows: &[&str]) -> (Vec<Row>, Vec<String>) {
    let text = format!("Id,{}\n{}\n", CLASSES.join(","), rows.join("\n"));
    let (Table { rows, .. }, problems) = parse_csv(Path::new("t.csv"), text.as_bytes());
    (rows, problems.iter().map(Error::to_string).collect())
}

fn row(id: &str, label: &str) -> String {
    format!("{id},{}", [label; 20].join(","))
}

#[test]
fn rows_come_with_their_line_and_unknown_labels_are_none() {
    let (rows, problems) = table(&[&row("7", "0"), "", &row("x", "-1")]);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((rows[0].line, &rows[0].labels), (2, &Some(vec![false; 20])));
    assert_eq!((rows[1].line, &rows[1].labels, rows[1].id.as_str()), (4, &None, "x"));
}

#[test]
fn everything_wrong_with_a_table_is_reported_at_once() {
    let mixed = row("5", "-1").replacen("-1", "1", 1);
    let (rows, problems) = table(&[
        &row("0", "0"),
        &row("0", "1"),
        &row("1", "2"),
        &row("", "0"),
        "2,0,0",
        &row("../up", "0"),
        &mixed,
        &row("9", "1"),
    ]);
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["0", "9"]);
    assert_eq!(problems[0], "t.csv, line 3, column `Id`: Id `0` was in line 2 before");
    assert_eq!(problems[1], "t.csv, line 4, column `aeroplane`: expected 0, 1 or -1, got `2`");
    assert_eq!(problems.len(), 1 + 20 + 4);
    assert!(problems[21].contains("line 5, column `Id`: expected an Id"), "{}", problems[21]);
    assert!(problems[22].contains("line 6: expected 21 fields, got 3"), "{}", problems[22]);
    assert!(problems[23].contains("`../up`"), "{}", problems[23]);
    assert!(problems[24].contains("got 19"), "{}", problems[24]);
}

#[test]
fn columns_may_come_in_another_order_and_after_a_byte_order_mark() {
    let mut names: Vec<&str> = CLASSES.to_vec();
    names.reverse();
    let text = format!("\u{feff}Id,{}\r\n3,1{}\r\n", names.join(","), ",0".repeat(19));
    let (Table { classes, rows }, problems) = parse_csv(Path::new("t.csv"), text.as_bytes());
    assert!(problems.is_empty(), "{problems:?}");
    let labels = rows[0].labels.as_ref().unwrap();
    assert!(classes.is_voc() && labels[19] && !labels[0]);
}
