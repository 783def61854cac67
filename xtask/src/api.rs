//! The public API as text, one item a line, so that a change of it shows in a review; and a look at whether each item has
//! an example.
//!
//! From rustdoc's JSON, which only an unstable option writes: the stable toolchain takes it with `RUSTC_BOOTSTRAP`. Its form
//! changes with the toolchain; where it is another one than is read here, the task says so and does nothing.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value answers null for a member that it does not have"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::{Failure, cargo};

/// The version of rustdoc's JSON that is read here: that of Rust 1.95.
const FORMAT_VERSION: u64 = 57;

/// The crates that are published, those first that others build on: the package, and its directory.
const CRATES: [(&str, &str); 2] = [("strand-lock", "lock"), ("strand-core", "core")];

/// `cargo xtask api [--bless]`.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let bless = match arguments {
        [] => false,
        [flag] if flag == "--bless" => true,
        _ => return Err(Failure::usage("usage: cargo xtask api [--bless]")),
    };
    let mut complaints = Vec::new();
    for (package, dir) in CRATES {
        let json = json_of(package)?;
        let found = json.get("format_version").and_then(Value::as_u64);
        if found != Some(FORMAT_VERSION) {
            eprintln!(
                "api: SKIPPED: this toolchain's rustdoc writes JSON of version {}, and version {FORMAT_VERSION} is \
                 read here; use another toolchain, or mend xtask/src/api.rs",
                found.unwrap_or(0)
            );
            return Ok(());
        }
        let krate = Crate::new(&json);
        let items = krate.items();
        let without = krate.without_example(&items).into_iter();
        complaints.extend(without.map(|path| format!("{path} has no example, and no link to one")));
        let by_path: BTreeSet<(&str, String)> = items
            .iter()
            .map(|item| (item.path.as_str(), krate.line(item)))
            .collect();
        let lines: Vec<String> = by_path.into_iter().map(|(_, line)| line).collect();
        let text = format!(
            "# The public API of {package}, one item a line.\n\
             # `cargo xtask api --bless` makes this from rustdoc's JSON, version {FORMAT_VERSION}.\n{}\n",
            lines.join("\n")
        );
        let path = cargo::workspace().join(dir).join("api.txt");
        if bless {
            write(&path, &text)?;
            println!("api: {dir}/api.txt: {} items", lines.len());
        } else if let Some(diff) = diff(&std::fs::read_to_string(&path).unwrap_or_default(), &text)
        {
            complaints.push(format!(
                "the public API is not that of {dir}/api.txt:\n{diff}\
                 if that is meant, run `cargo xtask api --bless`, and write of it in CHANGELOG.md"
            ));
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Failure {
        message: format!("api: FAILED\n{}", complaints.join("\n")),
        code: 1,
    })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::environment(format!("cannot write {}: {error}", path.display())))
}

/// The lines that only one of the texts has; `None` when there are none.
fn diff(old: &str, new: &str) -> Option<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (old.lines().collect(), new.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}\n"));
    let come = new.difference(&old).map(|line| format!("+ {line}\n"));
    let diff: String = gone.chain(come).collect();
    (!diff.is_empty()).then_some(diff)
}

/// What rustdoc says of a package, built apart, since everything is built anew for it.
fn json_of(package: &str) -> Result<Value, Failure> {
    let target_dir = cargo::workspace().join("target/api");
    let status = cargo::command(&["rustdoc", "--quiet", "--lib", "--package", package])
        .arg("--target-dir")
        .arg(&target_dir)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTC_BOOTSTRAP", "1")
        .status();
    let status =
        status.map_err(|error| Failure::environment(format!("cannot start cargo: {error}")))?;
    if !status.success() {
        return Err(Failure::environment(format!(
            "api: rustdoc fails for {package}"
        )));
    }
    let path = target_dir
        .join("doc")
        .join(package.replace('-', "_"))
        .with_extension("json");
    let text = std::fs::read_to_string(&path);
    let json = text.map_err(|error| error.to_string());
    json.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
        .map_err(|error| Failure::environment(format!("cannot read {}: {error}", path.display())))
}

/// A crate as rustdoc tells of it.
struct Crate<'a> {
    index: &'a Value,
    /// The definitions that are mentioned, also in other crates.
    paths: &'a Value,
    root: &'a Value,
    /// The names that this crate gives to types and traits.
    own_names: BTreeSet<&'a str>,
}

/// A public item, under the name by which it is reached.
struct Item<'a> {
    path: String,
    kind: &'a str,
    value: &'a Value,
    /// The part of `value` that is about this kind.
    inner: &'a Value,
    /// The path of the type, trait or module that it is a part of.
    parent: Option<String>,
}

impl<'a> Crate<'a> {
    fn new(json: &'a Value) -> Self {
        let mut krate = Self {
            index: &json["index"],
            paths: &json["paths"],
            root: &Value::Null,
            own_names: BTreeSet::new(),
        };
        krate.root = krate.get(&json["root"]);
        let kinds = ["struct", "enum", "trait", "type_alias"];
        let own = krate
            .index
            .as_object()
            .into_iter()
            .flat_map(|index| index.values());
        let named = own.filter(|item| kinds.contains(&kind(item).0));
        krate.own_names = named.filter_map(|item| item["name"].as_str()).collect();
        krate
    }

    /// The item with this id; `Null` for one of another crate.
    fn get(&self, id: &Value) -> &'a Value {
        self.index.get(id.to_string()).unwrap_or(&Value::Null)
    }

    fn all(&self, ids: &'a Value) -> impl Iterator<Item = &'a Value> {
        let found = list(ids).map(|id| self.get(id));
        found
            .filter(|item| !item.is_null())
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn items(&self) -> Vec<Item<'a>> {
        let mut items = Vec::new();
        let name = self.root["name"].as_str().unwrap_or_default();
        for item in self.all(&self.root["inner"]["module"]["items"]) {
            self.add(name, item["name"].as_str(), item, None, &mut items);
        }
        items
    }

    /// Adds an item and what is in it.
    fn add(
        &self,
        scope: &str,
        name: Option<&str>,
        value: &'a Value,
        parent: Option<&str>,
        items: &mut Vec<Item<'a>>,
    ) {
        let (kind, inner) = kind(value);
        if kind == "use" {
            let target = self.get(&inner["id"]);
            if !target.is_null() {
                return self.add(scope, inner["name"].as_str(), target, parent, items);
            }
        }
        let name = name.or(inner["name"].as_str()).unwrap_or_default();
        let path = format!("{scope}::{name}");
        items.push(Item {
            path: path.clone(),
            kind,
            value,
            inner,
            parent: parent.map(str::to_owned),
        });
        let parts = match kind {
            "struct" => &inner["kind"]["plain"]["fields"],
            "enum" => &inner["variants"],
            "variant" => &inner["kind"]["struct"]["fields"],
            "trait" | "module" => &inner["items"],
            _ => &Value::Null,
        };
        for part in self.all(parts) {
            self.add(&path, part["name"].as_str(), part, Some(&path), items);
        }
        if matches!(kind, "struct" | "enum") {
            let own = self
                .all(&inner["impls"])
                .map(|found| &found["inner"]["impl"]);
            for found in own.filter(|found| found["trait"].is_null()) {
                for part in self
                    .all(&found["items"])
                    .filter(|part| part["visibility"] == "public")
                {
                    self.add(&path, part["name"].as_str(), part, Some(&path), items);
                }
            }
        }
    }

    /// Functions, types, traits and constants that neither have an example, nor link to what has one, nor are used in the
    /// example of the type or module that they belong to or in that of the crate. What a trait demands is shown with the trait.
    fn without_example(&self, items: &[Item<'a>]) -> Vec<String> {
        let by_path: BTreeMap<&str, &Item<'_>> = items
            .iter()
            .map(|item| (item.path.as_str(), item))
            .collect();
        let shows = |value: &Value, name: &Value| {
            name.as_str()
                .is_some_and(|name| mentions(&examples(value), name))
        };
        let has_one = |item: &Item<'_>| {
            let links = item.value["links"].as_object().into_iter().flatten();
            let mut targets = links.map(|(_, id)| self.get(id));
            // What is in another crate is looked at there.
            !examples(item.value).is_empty()
                || targets.any(|target| target.is_null() || !examples(target).is_empty())
                || shows(self.root, &item.value["name"])
        };
        let lacks_one = |item: &&Item<'_>| {
            let parent = item.parent.as_deref().and_then(|path| by_path.get(path));
            let by_parent = parent.is_some_and(|parent| {
                shows(parent.value, &item.value["name"])
                    || parent.kind == "trait" && has_one(parent)
            });
            !matches!(item.kind, "struct_field" | "variant" | "use" | "module")
                && !by_parent
                && !has_one(item)
        };
        items
            .iter()
            .filter(lacks_one)
            .map(|item| item.path.clone())
            .collect()
    }

    /// An item and its signature.
    fn line(&self, item: &Item<'a>) -> String {
        let Item {
            path,
            kind,
            value,
            inner,
            ..
        } = item;
        let marks =
            list(&value["attrs"]).filter(|attr| attr.to_string().contains("non_exhaustive"));
        let mut mark = marks.map(|_| "#[non_exhaustive] ").collect::<String>();
        if !value["deprecation"].is_null() {
            mark.push_str("#[deprecated] ");
        }
        let generics = self.generics(&inner["generics"]);
        let line = match *kind {
            "function" => self.function(path, inner),
            "struct" => {
                let fields = if inner["kind"]["plain"]["has_stripped_fields"] == false {
                    ""
                } else {
                    " { .. }"
                };
                format!(
                    "struct {path}{generics}{fields}{}",
                    self.traits(value, inner)
                )
            }
            "enum" => format!("enum {path}{generics}{}", self.traits(value, inner)),
            "trait" => format!(
                "trait {path}{generics}{}",
                self.bounds(": ", &inner["bounds"])
            ),
            "variant" => {
                let tuple = list(&inner["kind"]["tuple"])
                    .map(|id| self.ty(&self.get(id)["inner"]["struct_field"]));
                let tuple = tuple.collect::<Vec<_>>().join(", ");
                let tuple = if tuple.is_empty() {
                    tuple
                } else {
                    format!("({tuple})")
                };
                format!("variant {path}{tuple}")
            }
            "struct_field" => format!("field {path}: {}", self.ty(inner)),
            "constant" => {
                let value = inner["const"]["value"].as_str();
                let value = value.map_or_else(String::new, |value| format!(" = {value}"));
                format!("const {path}: {}{value}", self.ty(&inner["type"]))
            }
            "assoc_const" => format!("const {path}: {}", self.ty(&inner["type"])),
            "type_alias" => format!("type {path}{generics} = {}", self.ty(&inner["type"])),
            "use" => format!("use {path} = {}", text(&inner["source"])),
            other => format!("{other} {path}"),
        };
        format!("{mark}{line}{}", self.wheres(&inner["generics"]))
    }

    fn function(&self, path: &str, inner: &Value) -> String {
        let signature = &inner["sig"];
        let inputs = list(&signature["inputs"]).map(|input| {
            let (name, ty) = (text(&input[0]), self.ty(&input[1]));
            match (name, ty.as_str()) {
                ("self", "Self") => "self".to_owned(),
                ("self", "&Self") => "&self".to_owned(),
                ("self", "&mut Self") => "&mut self".to_owned(),
                _ => format!("{name}: {ty}"),
            }
        });
        let inputs = inputs.collect::<Vec<_>>().join(", ");
        let output = match &signature["output"] {
            Value::Null => String::new(),
            output => format!(" -> {}", self.ty(output)),
        };
        let header = ["const", "async", "unsafe"].map(|word| {
            if inner["header"][format!("is_{word}")] == true {
                format!("{word} ")
            } else {
                String::new()
            }
        });
        let generics = self.generics(&inner["generics"]);
        format!("{}fn {path}{generics}({inputs}){output}", header.concat())
    }

    /// The traits that a type has.
    fn traits(&self, value: &Value, inner: &Value) -> String {
        /// Of those that come by themselves.
        const AUTO: [&str; 2] = ["Send", "Sync"];
        let impls = list(&inner["impls"]).map(|id| &self.get(id)["inner"]["impl"]);
        let names = impls.filter_map(|found| {
            let is_auto = found["is_synthetic"] == true;
            let name = text(&found["trait"]["path"]);
            // What is about this type, but is another's, is in the list too.
            let is_own = found["for"]["resolved_path"]["id"] == value["id"];
            let counts = is_own
                && found["trait"].is_object()
                && found["blanket_impl"].is_null()
                && (!is_auto || AUTO.contains(&name))
                && name != "StructuralPartialEq";
            let not = if found["is_negative"] == true {
                "!"
            } else {
                ""
            };
            counts.then(|| format!("{not}{}", self.path(&found["trait"])))
        });
        let names: BTreeSet<String> = names.collect();
        if names.is_empty() {
            return String::new();
        }
        format!(": {}", names.into_iter().collect::<Vec<_>>().join(" + "))
    }

    fn generics(&self, generics: &Value) -> String {
        let named =
            list(&generics["params"]).filter(|param| param["kind"]["type"]["is_synthetic"] != true);
        let params = named.map(|param| {
            let name = text(&param["name"]);
            let ty = &param["kind"]["type"];
            let constant = &param["kind"]["const"]["type"];
            let default = match &ty["default"] {
                Value::Null => String::new(),
                default => format!(" = {}", self.ty(default)),
            };
            match constant {
                Value::Null => format!("{name}{}{default}", self.bounds(": ", &ty["bounds"])),
                constant => format!("const {name}: {}", self.ty(constant)),
            }
        });
        let params: Vec<String> = params.collect();
        if params.is_empty() {
            String::new()
        } else {
            format!("<{}>", params.join(", "))
        }
    }

    fn wheres(&self, generics: &Value) -> String {
        let predicates = list(&generics["where_predicates"]).map(|predicate| {
            let bound = &predicate["bound_predicate"];
            if bound.is_object() {
                format!(
                    "{}{}",
                    self.ty(&bound["type"]),
                    self.bounds(": ", &bound["bounds"])
                )
            } else {
                predicate.to_string()
            }
        });
        let predicates: Vec<String> = predicates.collect();
        if predicates.is_empty() {
            String::new()
        } else {
            format!(" where {}", predicates.join(", "))
        }
    }

    fn bounds(&self, before: &str, bounds: &Value) -> String {
        let bounds = list(bounds).map(|bound| match &bound["trait_bound"] {
            Value::Null => bound["outlives"]
                .as_str()
                .map_or_else(|| bound.to_string(), str::to_owned),
            found => {
                let maybe = if found["modifier"] == "maybe" {
                    "?"
                } else {
                    ""
                };
                format!("{maybe}{}", self.path(&found["trait"]))
            }
        });
        let bounds: Vec<String> = bounds.collect();
        if bounds.is_empty() {
            String::new()
        } else {
            format!("{before}{}", bounds.join(" + "))
        }
    }

    /// A type or trait by its name: as a whole path, where it is neither this crate's nor the standard library's, or
    /// where another has the same name.
    fn path(&self, path: &Value) -> String {
        const AMBIGUOUS: [&str; 2] = ["Error", "Result"];
        let written = text(&path["path"]);
        let definition: Vec<&str> = list(&self.paths[path["id"].to_string()]["path"])
            .map(text)
            .collect();
        let args = self.arguments(&path["args"]);
        let [krate, .., name] = definition.as_slice() else {
            return format!("{written}{args}");
        };
        let krate = match *krate {
            "core" | "alloc" => "std",
            krate => krate,
        };
        let is_own = self.root["name"] == krate;
        let is_clear = !self.own_names.contains(name) && !AMBIGUOUS.contains(name);
        if is_own || krate == "std" && is_clear {
            format!("{name}{args}")
        } else {
            let inner = definition.get(1..).unwrap_or_default().join("::");
            format!("{krate}::{inner}{args}")
        }
    }

    fn arguments(&self, args: &Value) -> String {
        let angle = &args["angle_bracketed"];
        if angle.is_object() {
            let given = list(&angle["args"]).map(|arg| match (&arg["lifetime"], &arg["type"]) {
                (Value::String(lifetime), _) => lifetime.clone(),
                (_, Value::Null) => arg.to_string(),
                (_, ty) => self.ty(ty),
            });
            let bound = list(&angle["constraints"]).map(|constraint| {
                let (name, binding) = (text(&constraint["name"]), &constraint["binding"]);
                match &binding["equality"]["type"] {
                    Value::Null => format!("{name}{}", self.bounds(": ", &binding["constraint"])),
                    ty => format!("{name} = {}", self.ty(ty)),
                }
            });
            let args: Vec<String> = given.chain(bound).collect();
            return if args.is_empty() {
                String::new()
            } else {
                format!("<{}>", args.join(", "))
            };
        }
        let call = &args["parenthesized"];
        if call.is_object() {
            let inputs = list(&call["inputs"])
                .map(|ty| self.ty(ty))
                .collect::<Vec<_>>()
                .join(", ");
            let output = match &call["output"] {
                Value::Null => String::new(),
                output => format!(" -> {}", self.ty(output)),
            };
            return format!("({inputs}){output}");
        }
        String::new()
    }

    fn ty(&self, ty: &Value) -> String {
        let Some((kind, inner)) = ty.as_object().and_then(|ty| ty.iter().next()) else {
            return ty.as_str().map_or_else(|| ty.to_string(), str::to_owned);
        };
        let mutable = |word: &'static str, other: &'static str| {
            if inner["is_mutable"] == true {
                word
            } else {
                other
            }
        };
        match kind.as_str() {
            "resolved_path" => self.path(inner),
            "generic" | "primitive" => text(inner).to_owned(),
            "borrowed_ref" => {
                let lifetime = inner["lifetime"]
                    .as_str()
                    .map(|lifetime| format!("{lifetime} "));
                let lifetime = lifetime.unwrap_or_default();
                format!(
                    "&{lifetime}{}{}",
                    mutable("mut ", ""),
                    self.ty(&inner["type"])
                )
            }
            "raw_pointer" => format!("*{}{}", mutable("mut ", "const "), self.ty(&inner["type"])),
            "slice" => format!("[{}]", self.ty(inner)),
            "array" => format!("[{}; {}]", self.ty(&inner["type"]), text(&inner["len"])),
            "tuple" => format!(
                "({})",
                list(inner)
                    .map(|ty| self.ty(ty))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "impl_trait" => format!("impl{}", self.bounds(" ", inner)),
            "dyn_trait" => {
                let traits = list(&inner["traits"]).map(|found| self.path(&found["trait"]));
                let lifetime = inner["lifetime"].as_str().map(str::to_owned);
                let all: Vec<String> = traits.chain(lifetime).collect();
                format!("dyn {}", all.join(" + "))
            }
            "qualified_path" => {
                format!(
                    "<{} as {}>::{}",
                    self.ty(&inner["self_type"]),
                    self.path(&inner["trait"]),
                    text(&inner["name"])
                )
            }
            _ => ty.to_string(),
        }
    }
}

/// What an item is, and what is said of it as that.
fn kind(item: &Value) -> (&str, &Value) {
    let inner = item["inner"]
        .as_object()
        .and_then(|inner| inner.iter().next());
    inner.map_or(("", &Value::Null), |(kind, inner)| (kind.as_str(), inner))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The code in an item's documentation.
fn examples(item: &Value) -> String {
    text(&item["docs"])
        .split("```")
        .skip(1)
        .step_by(2)
        .collect()
}

/// Whether a name stands in a text as a word of its own.
fn mentions(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_line_by_line() {
        assert_eq!(diff("a\nb\nc", "a\nb\nc\n"), None);
        assert_eq!(diff("a\nb", "a\nc").as_deref(), Some("- b\n+ c\n"));
    }

    fn crate_of(method_docs: &str, links: &str) -> Value {
        let text = r#"{
            "format_version": 57, "root": 0,
            "index": {
                "0": {"name": "k", "docs": "", "inner": {"module": {"items": [1]}}},
                "1": {"id": 1, "name": "S", "docs": "```\nS::shown();\n```", "attrs": ["non_exhaustive"],
                    "inner": {"struct": {"kind": {"plain": {"fields": [], "has_stripped_fields": true}},
                        "generics": {"params": [], "where_predicates": []}, "impls": [2, 3]}}},
                "2": {"inner": {"impl": {"trait": null, "items": [4]}}},
                "3": {"inner": {"impl": {"for": {"resolved_path": {"id": 1}}, "trait": {"path": "Clone", "id": 9, "args": null},
                    "blanket_impl": null, "is_synthetic": false, "items": []}}},
                "4": {"name": "get", "docs": "DOCS", "links": LINKS, "visibility": "public", "attrs": [],
                    "inner": {"function": {"generics": {"params": [], "where_predicates": []}, "header": {},
                        "sig": {"inputs": [["self", {"borrowed_ref": {"lifetime": null, "is_mutable": false,
                            "type": {"generic": "Self"}}}], ["at", {"primitive": "u64"}]],
                        "output": {"resolved_path": {"path": "Option", "id": 8, "args": {"angle_bracketed":
                            {"args": [{"type": {"primitive": "u8"}}], "constraints": []}}}}}}}}
            },
            "paths": {"8": {"path": ["core", "option", "Option"]}, "9": {"path": ["core", "clone", "Clone"]}}
        }"#;
        let text = text.replace("DOCS", method_docs).replace("LINKS", links);
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn items_are_told_with_their_signatures() {
        let json = crate_of("", "{}");
        let krate = Crate::new(&json);
        let lines: Vec<String> = krate.items().iter().map(|item| krate.line(item)).collect();
        let expected = [
            "#[non_exhaustive] struct k::S { .. }: Clone",
            "fn k::S::get(&self, at: u64) -> Option<u8>",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_item_without_an_example_or_a_link_to_one_is_found() {
        let without = |docs, links| {
            let json = crate_of(docs, links);
            let krate = Crate::new(&json);
            krate.without_example(&krate.items())
        };
        assert_eq!(without("Gets it.", "{}"), ["k::S::get"]);
        assert_eq!(
            without("Gets it, see [`get`].", r#"{"get": 4}"#),
            ["k::S::get"]
        );
        assert_eq!(without("Gets it, see [`S`].", r#"{"S": 1}"#), [""; 0]);
        assert_eq!(without("```\\nget();\\n```", "{}"), [""; 0]);
    }
}
