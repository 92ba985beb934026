//! Reads the text form.

use super::cursor::{Cursor, Result};
use super::operation::{Argument, Attributes, Label, operation};
use super::{Lookup, print, sample};
use crate::EngineError;
use crate::graph::{Batch, Constant, Graph, Node, Source, Value, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// Numbers that a text without data may ask for: 1 GiB of them.
const MAX_SAMPLED: usize = 1 << 28;

/// Inputs of one node: more than any concatenation has.
const MAX_ARGUMENTS: usize = 1024;

/// The graph of `text`; constants come from `lookup`, if there is one.
pub(super) fn parse(
    text: &str,
    mut lookup: Option<&mut Lookup<'_>>,
) -> std::result::Result<Graph, EngineError> {
    let mut parser = Parser::default();
    for (index, line) in text.lines().enumerate() {
        let result = parser.line(&mut Cursor::new(line), &mut lookup);
        result.map_err(|reason| EngineError::graph(format!("line {}", index + 1), reason))?;
    }
    Ok(parser.graph)
}

#[derive(Default)]
struct Parser {
    graph: Graph,
    /// Values by what they are called in the text, sigil included.
    names: HashMap<String, ValueId>,
    sampled: usize,
}

impl Parser {
    fn line(&mut self, line: &mut Cursor<'_>, lookup: &mut Option<&mut Lookup<'_>>) -> Result<()> {
        if line.is_at_end() || line.next_is("#") {
            return Ok(());
        }
        if line.next_is("%") {
            return self.node(line);
        }
        match line.word("`graph`, `input`, `const`, `output` or a result `%…`")? {
            "graph" => self.header(line)?,
            "input" => {
                let name = Name::read(line, '%')?;
                let shape = line.sizes()?;
                let id = self.define(name, shape, Source::Input)?;
                self.graph.inputs.push(id);
            }
            "const" => self.constant(line, lookup)?,
            "output" => {
                let id = self.value(line)?;
                self.graph.outputs.push(id);
            }
            word => {
                return Err(format!(
                    "expected `graph`, `input`, `const`, `output` or a result, found `{word}`"
                ));
            }
        }
        if line.is_at_end() || line.next_is("#") { Ok(()) } else { line.wanted("the end of the line") }
    }

    fn header(&mut self, line: &mut Cursor<'_>) -> Result<()> {
        self.graph.name = line.name("the graph's name")?;
        if line.eat("batch=") {
            self.graph.batch =
                if line.eat("free") { Batch::Free } else { Batch::Fixed(line.number("`free` or a number")?) };
        }
        Ok(())
    }

    fn constant(&mut self, line: &mut Cursor<'_>, lookup: &mut Option<&mut Lookup<'_>>) -> Result<()> {
        let name = Name::read(line, '@')?;
        let shape = line.sizes()?;
        let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let count = count.ok_or_else(|| format!("{shape:?} has too many elements"))?;
        let data: Arc<[f32]> = if let Some(lookup) = lookup {
            let key = if line.eat("from") { Some(line.quoted()?) } else { None };
            lookup(&name.name, &shape, key.as_deref())?
        } else {
            self.sampled = self.sampled.saturating_add(count);
            if self.sampled > MAX_SAMPLED {
                return Err(format!("the text has more than {MAX_SAMPLED} numbers"));
            }
            if !line.eat("=") {
                sample::numbers(&name.name, &shape).into()
            } else if line.next_is("[") {
                line.list(count, "a number")?.into()
            } else {
                vec![line.number("a number or `[`")?; count].into()
            }
        };
        if data.len() != count {
            return Err(format!("{} numbers for shape {shape:?}", data.len()));
        }
        self.define(name, shape, Source::Constant(Constant { data }))?;
        Ok(())
    }

    fn node(&mut self, line: &mut Cursor<'_>) -> Result<()> {
        let mut names = vec![Name::read(line, '%')?];
        while line.eat(",") {
            names.push(Name::read(line, '%')?);
        }
        line.expect("=")?;
        let operator = line.word("an operator")?;
        let arguments = self.arguments(line)?;
        let mut attributes = Attributes::read(line)?;
        let op = operation(operator, &arguments, &mut attributes)?;
        attributes.finish(operator)?;

        let inputs = arguments.into_iter().map(|argument| argument.value).collect();
        let mut node = Node { name: String::new(), op, inputs, outputs: Vec::new() };
        let stated = comment(line, &mut node.name)?;
        let shapes = self.graph.infer(&node).map_err(|error| match error {
            EngineError::Graph { reason, .. } => reason,
            other => other.to_string(),
        })?;
        if stated.as_ref().is_some_and(|stated| *stated != shapes) {
            return Err(format!("the results are {shapes:?}, not what the comment says"));
        }
        if names.len() != shapes.len() {
            return Err(format!("{operator} has {} results here, {} are named", shapes.len(), names.len()));
        }
        for (name, shape) in names.into_iter().zip(shapes) {
            let id = self.define(name, shape, Source::Node)?;
            node.outputs.push(id);
        }
        self.graph.nodes.push(node);
        Ok(())
    }

    fn arguments(&self, line: &mut Cursor<'_>) -> Result<Vec<Argument>> {
        line.expect("(")?;
        let mut arguments = Vec::new();
        while !line.eat(")") {
            if !arguments.is_empty() {
                line.expect(",")?;
            }
            if arguments.len() == MAX_ARGUMENTS {
                return Err(format!("a node has more than {MAX_ARGUMENTS} inputs"));
            }
            let label = match () {
                () if line.eat("bias=") => Label::Bias,
                () if line.eat("residual=") => Label::Residual,
                () => Label::None,
            };
            arguments.push(Argument { label, value: self.value(line)? });
        }
        Ok(arguments)
    }

    fn value(&self, line: &mut Cursor<'_>) -> Result<ValueId> {
        let sigil = if line.next_is("@") { '@' } else { '%' };
        let Name { key, .. } = Name::read(line, sigil)?;
        self.names.get(&key).copied().ok_or_else(|| format!("`{key}` is not defined above"))
    }

    fn define(&mut self, Name { key, name }: Name, shape: Vec<usize>, source: Source) -> Result<ValueId> {
        if self.names.contains_key(&key) {
            return Err(format!("`{key}` is defined twice"));
        }
        let id = self.graph.value(Value { name, shape, source });
        self.names.insert(key, id);
        Ok(id)
    }
}

/// A value's name as it stands in the text, and its own, which is empty if the text has a number.
struct Name {
    key: String,
    name: String,
}

impl Name {
    fn read(line: &mut Cursor<'_>, sigil: char) -> Result<Self> {
        line.expect(sigil.encode_utf8(&mut [0; 4]))?;
        let quoted = line.next_is("\"");
        let name = line.name("a name")?;
        if !quoted && name.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self { key: format!("{sigil}{name}"), name: String::new() });
        }
        Ok(Self { key: format!("{sigil}{}", print::name(&name)), name })
    }
}

/// `# path -> [1, 2], [3, 4]`: writes the path and returns the shapes, if there are any.
fn comment(line: &mut Cursor<'_>, path: &mut String) -> Result<Option<Vec<Vec<usize>>>> {
    if line.is_at_end() {
        return Ok(None);
    }
    line.expect("#")?;
    if !line.next_is("->") {
        *path = line.name("a module path or `->`")?;
    }
    if line.is_at_end() {
        return Ok(None);
    }
    line.expect("->")?;
    let mut shapes = vec![line.sizes()?];
    while line.eat(",") {
        shapes.push(line.sizes()?);
    }
    if line.is_at_end() { Ok(Some(shapes)) } else { line.wanted("the end of the line") }
}
