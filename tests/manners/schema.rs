//! The part of JSON Schema (draft 2020-12) that docs/schemas is written in: a key of a schema that is not
//! known here is a mistake of the test, so that no schema says more than is checked.

use serde_json::Value;

/// What of the document is not as its schema has it, a line each.
pub fn violations(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Check { root: schema, found: &mut found }.value(schema, document, "$");
    found
}

struct Check<'a> {
    root: &'a Value,
    found: &'a mut Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        for (key, wanted) in schema.as_object().unwrap_or_else(|| panic!("{at}: no schema: {schema}")) {
            match &key[..] {
                "$schema" | "$defs" | "title" | "description" => {}
                "$ref" => {
                    let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                    self.value(self.root.pointer(path).unwrap(), value, at);
                }
                "anyOf" => {
                    let fits = |one: &Value| {
                        let mut found = Vec::new();
                        Check { root: self.root, found: &mut found }.value(one, value, at);
                        found.is_empty()
                    };
                    let any = wanted.as_array().unwrap().iter().any(fits);
                    self.expect(any, || format!("{at}: {value} is none of {wanted}"));
                }
                "type" => {
                    let any = match wanted {
                        Value::Array(types) => {
                            types.iter().any(|name| is(value, name.as_str().unwrap()))
                        }
                        name => is(value, name.as_str().unwrap()),
                    };
                    self.expect(any, || format!("{at}: expected {wanted}, got {value}"));
                }
                "enum" => {
                    let any = wanted.as_array().unwrap().contains(value);
                    self.expect(any, || format!("{at}: expected one of {wanted}, got {value}"));
                }
                "minimum" | "maximum" => {
                    let (value, wanted) = (value.as_f64(), wanted.as_f64().unwrap());
                    let fits =
                        value.is_none_or(|v| if key == "minimum" { v >= wanted } else { v <= wanted });
                    self.expect(fits, || format!("{at}: {key} {wanted}, got {value:?}"));
                }
                "minItems" | "maxItems" => {
                    let (length, wanted) =
                        (value.as_array().map(Vec::len), wanted.as_u64().unwrap() as usize);
                    let fits =
                        length.is_none_or(|n| if key == "minItems" { n >= wanted } else { n <= wanted });
                    self.expect(fits, || format!("{at}: {key} {wanted}, got {length:?}"));
                }
                "items" | "prefixItems" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        let schema = if key == "items" { Some(wanted) } else { wanted.get(i) };
                        schema
                            .into_iter()
                            .for_each(|schema| self.value(schema, item, &format!("{at}[{i}]")));
                    }
                }
                "properties" => {
                    for (name, schema) in wanted.as_object().unwrap() {
                        let value = value.get(name);
                        value
                            .into_iter()
                            .for_each(|value| self.value(schema, value, &format!("{at}.{name}")));
                    }
                }
                "required" => {
                    for name in wanted.as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
                        let there = !value.is_object() || value.get(name).is_some();
                        self.expect(there, || format!("{at}: expected the key `{name}`"));
                    }
                }
                "additionalProperties" => self.additional(schema, wanted, value, at),
                unknown => panic!("{at}: `{unknown}` of the schema is not known to this test"),
            }
        }
    }

    fn additional(&mut self, schema: &Value, wanted: &Value, value: &Value, at: &str) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let known = schema.get("properties").is_some_and(|known| known.get(name).is_some());
            match wanted {
                _ if known => {}
                Value::Bool(fits) => {
                    self.expect(*fits, || format!("{at}: `{name}` is not in the schema"))
                }
                schema => self.value(schema, value, &format!("{at}.{name}")),
            }
        }
    }

    fn expect(&mut self, fits: bool, why: impl FnOnce() -> String) {
        self.found.extend((!fits).then(why));
    }
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("no type `{unknown}`"),
    }
}

#[test]
fn what_is_not_as_the_schema_has_it_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["n", "list"],
        "additionalProperties": false,
        "properties": {
            "n": { "type": ["integer", "null"], "minimum": 1, "maximum": 3 },
            "kind": { "enum": ["a", "b"] },
            "list": { "type": "array", "minItems": 1, "maxItems": 2, "items": { "$ref": "#/$defs/text" } },
            "pair": { "prefixItems": [{ "type": "string" }, { "type": "number" }] },
            "map": { "type": "object", "additionalProperties": { "type": "boolean" } },
            "maybe": { "anyOf": [{ "type": "null" }, { "type": "string" }] },
        },
        "$defs": { "text": { "type": "string" } },
    });
    let fits = |text: &str| violations(&schema, &serde_json::from_str(text).unwrap());
    for fine in [
        r#"{"n": 1, "list": ["x"]}"#,
        r#"{"n": null, "list": ["x", "y"], "kind": "b", "maybe": "s"}"#,
        r#"{"n": 3, "list": ["x"], "pair": ["x", 1.5], "map": {"q": true}, "maybe": null}"#,
    ] {
        assert_eq!(fits(fine), [] as [String; 0], "{fine}");
    }
    for wrong in [
        "[]",
        r#"{"list": ["x"]}"#,
        r#"{"n": 0, "list": ["x"]}"#,
        r#"{"n": 4, "list": ["x"]}"#,
        r#"{"n": 1.5, "list": ["x"]}"#,
        r#"{"n": 1, "list": []}"#,
        r#"{"n": 1, "list": ["x", "y", "z"]}"#,
        r#"{"n": 1, "list": [2]}"#,
        r#"{"n": 1, "list": ["x"], "other": 1}"#,
        r#"{"n": 1, "list": ["x"], "kind": "c"}"#,
        r#"{"n": 1, "list": ["x"], "pair": ["x", "y"]}"#,
        r#"{"n": 1, "list": ["x"], "map": {"q": 1}}"#,
        r#"{"n": 1, "list": ["x"], "maybe": 1}"#,
    ] {
        assert_eq!(fits(wrong).len(), 1, "{wrong}: {:?}", fits(wrong));
    }
}
