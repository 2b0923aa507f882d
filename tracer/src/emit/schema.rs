//! The published description of one output line.

/// JSON Schema (2020-12) of every record of schema 1, printed by `tracer schema`.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::record::samples;
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// As a reader gets them.
    fn samples() -> Vec<(&'static str, Value)> {
        let read = |line: String| serde_json::from_str(&line).unwrap();
        samples::all().into_iter().map(|(kind, line)| (kind, read(line))).collect()
    }

    /// Follows a reference within the schema; `anyOf` and `allOf` are resolved by [`Walk`].
    fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
        match node.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let target = root.pointer(reference.trim_start_matches('#'));
                resolve(root, target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
            }
            None => node,
        }
    }

    /// Compares an instance with the schema, property by property.
    struct Walk<'a> {
        root: &'a Value,
        /// Properties of the schema met in some sample, by the address of the describing node.
        met: BTreeSet<*const Value>,
    }

    impl<'a> Walk<'a> {
        fn visit(&mut self, node: &'a Value, instance: &Value, path: &str) {
            let node = resolve(self.root, node);
            for branch in ["anyOf", "allOf"] {
                let kind = |part: &&Value| {
                    let part = resolve(self.root, part);
                    part.get("properties").is_some() == instance.is_object() && part["type"] != "null"
                };
                if let Some(parts) = node.get(branch).and_then(Value::as_array)
                    && let Some(part) = parts.iter().find(kind)
                {
                    self.visit(part, instance, path);
                }
            }
            match instance {
                Value::Object(fields)
                    if node.get("anyOf").is_none() && node["additionalProperties"] != true =>
                {
                    for (name, value) in fields {
                        let path = format!("{path}.{name}");
                        if let Some(described) = node.pointer(&format!("/properties/{name}")) {
                            assert!(described["description"].is_string(), "{path} has no description");
                            self.met.insert(std::ptr::from_ref(described));
                            self.visit(described, value, &path);
                        } else {
                            let open = node.get("additionalProperties").filter(|open| open.is_object());
                            self.visit(
                                open.unwrap_or_else(|| panic!("{path} is not described")),
                                value,
                                &path,
                            );
                        }
                    }
                }
                Value::Array(items) => {
                    for item in items {
                        if let Some(described) = node.get("items") {
                            self.visit(described, item, &format!("{path}[]"));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn describe<'a>(node: &'a Value, out: &mut BTreeMap<*const Value, &'a str>) {
        match node {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == "properties" {
                        for (name, described) in value.as_object().unwrap() {
                            out.insert(std::ptr::from_ref(described), name);
                        }
                    }
                    describe(value, out);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| describe(item, out)),
            _ => {}
        }
    }

    fn record_schemas(root: &Value) -> BTreeMap<&str, &Value> {
        let kinds = root["oneOf"].as_array().unwrap().iter().map(|node| resolve(root, node));
        kinds.map(|node| (node["properties"]["type"]["const"].as_str().unwrap(), node)).collect()
    }

    #[test]
    fn is_a_valid_schema() {
        assert!(jsonschema::draft202012::meta::is_valid(&schema()));
    }

    #[test]
    fn every_sample_is_valid_and_of_its_own_kind_only() {
        let root = schema();
        let validator = jsonschema::draft202012::new(&root).unwrap();
        for (kind, sample) in samples() {
            let errors: Vec<String> = validator.iter_errors(&sample).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{kind}: {errors:?}\n{sample:#}");
            assert_eq!(sample["type"], kind);
        }
    }

    #[test]
    fn wrong_records_are_refused() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let (_, sample) = samples().into_iter().find(|(kind, _)| *kind == "conn").unwrap();
        let wrong =
            [("type", json!("nothing")), ("id", json!(5)), ("ts", json!("yesterday")), ("role", json!("x"))];
        for (name, value) in wrong {
            let mut record = sample.clone();
            record[name] = value;
            assert!(!validator.is_valid(&record), "{name}");
        }
        let mut future = sample;
        future["something_new"] = json!(1);
        assert!(validator.is_valid(&future));
    }

    #[test]
    fn schema_and_records_have_the_same_properties() {
        let root = schema();
        let kinds = record_schemas(&root);
        let mut walk = Walk { root: &root, met: BTreeSet::new() };
        for (kind, sample) in samples() {
            walk.visit(kinds[kind], &sample, kind);
        }
        let mut described = BTreeMap::new();
        describe(&root, &mut described);
        let unused: Vec<&str> =
            described.iter().filter(|(node, _)| !walk.met.contains(*node)).map(|(_, name)| *name).collect();
        assert!(unused.is_empty(), "described and never written: {unused:?}");
    }

    #[test]
    fn required_properties_are_all_of_them() {
        let root = schema();
        for (kind, node) in record_schemas(&root) {
            let names: BTreeSet<&str> =
                node["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let required: BTreeSet<&str> =
                node["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            assert_eq!(names, required, "{kind}");
        }
    }

    #[test]
    fn records_begin_with_type_and_ts() {
        for (kind, line) in samples::all() {
            let begin = format!(r#"{{"type":"{kind}","ts":"2024-02-29T12:34:56.000000007Z","#);
            assert!(line.starts_with(&begin), "{line}");
        }
    }
}
