//! The stack machine that a pickle is a program for, less everything that could run code.
//!
//! For each opcode: push a value, or pop some and push what they make. Departures from Python's machine:
//! 1. A global is a name; calling one is [`call`](Machine::call), which knows PyTorch's rebuild functions
//!    and leaves any other call opaque.
//! 2. Opcodes, nodes and the stack are counted, so that a forged pickle costs little.
//! 3. Out-of-band buffers, extension codes and the text opcodes of protocol 0 that `torch.save` does not
//!    write are refused.

use super::pickle::{Node, Pickle, Value};
use super::rebuild::short;
use crate::error::{Result, damaged, unsupported};
use std::collections::HashMap;

/// Some 20 times what the largest networks with optimizer and EMA need.
const MAX_OPCODES: usize = 4 << 20;
const MAX_NODES: usize = 1 << 20;

pub(super) fn run(bytes: &[u8]) -> Result<Pickle> {
    let mut machine = Machine::new(bytes);
    for _ in 0..MAX_OPCODES {
        if machine.step()? {
            let root = machine.pop()?;
            return Ok(Pickle { nodes: machine.nodes, root, len: machine.at });
        }
    }
    unsupported(format!("its pickle has over {MAX_OPCODES} steps; save the state dict alone"))
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    pub(super) stack: Vec<Value>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Dict entries that calls were given so far.
    pub(super) copied_pairs: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (nodes, stack, marks) = (Vec::new(), Vec::new(), Vec::new());
        Self { bytes, at: 0, nodes, stack, marks, memo: HashMap::new(), copied_pairs: 0 }
    }

    /// Runs one opcode; true at the end of the pickle.
    fn step(&mut self) -> Result<bool> {
        let [op] = self.array()?;
        match op {
            b'.' => return Ok(true),
            0x80 => self.skip(1)?, // protocol number
            0x95 => self.skip(8)?, // frame length
            b'N' | 0x88 | 0x89 | b'I' | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(op)?,
            b'X' | 0x8c | 0x8d | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => self.string(op)?,
            b'(' => self.marks.push(self.stack.len()),
            b')' | b'}' | b']' | 0x8f | b't' | b'l' | b'd' | 0x91 | 0x85..=0x87 => self.container(op)?,
            b'a' | b'e' | 0x90 | b's' | b'u' => self.fill(op)?,
            b'0' | b'1' | b'2' => self.shuffle(op)?,
            b'q' | b'r' | b'p' | b'h' | b'j' | b'g' | 0x94 => self.remember(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.object(op)?,
            other => return self.unknown(other),
        }
        Ok(false)
    }

    fn unknown(&self, op: u8) -> Result<bool> {
        const KNOWN: &[u8] = b"LFSVPio\x82\x83\x84\x97\x98";
        if KNOWN.contains(&op) {
            return unsupported(format!(
                "pickle opcode {op:#04x}; save it with torch.save's default protocol"
            ));
        }
        damaged(format!("{op:#04x} at byte {} of its pickle is no opcode", self.at - 1))
    }

    // Input

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => damaged(format!("its pickle ends within a value at byte {}", self.at)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.take(N as u64)?.first_chunk() {
            Some(bytes) => Ok(*bytes),
            None => damaged("its pickle is cut short"),
        }
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        self.take(len).map(|_| ())
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(len) = rest.iter().position(|&b| b == b'\n') else {
            return damaged("its pickle ends within a line");
        };
        let line = self.take(len as u64)?;
        self.skip(1)?;
        std::str::from_utf8(line).or_else(|_| damaged("its pickle has a name that is not UTF-8"))
    }

    // Stack

    pub(super) fn node(&mut self, node: Node) -> Result<()> {
        if self.nodes.len() >= MAX_NODES {
            return unsupported(format!("its pickle has over {MAX_NODES} values; save the state dict alone"));
        }
        self.stack.push(Value::Node(self.nodes.len() as u32));
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        match self.stack.pop() {
            Some(value) if self.marks.last().is_none_or(|&mark| self.stack.len() >= mark) => Ok(value),
            _ => damaged(format!("its pickle takes a value that is not there, at byte {}", self.at)),
        }
    }

    fn top(&self) -> Result<Value> {
        match self.stack.last() {
            Some(value) => Ok(*value),
            None => damaged(format!("its pickle uses a value that is not there, at byte {}", self.at)),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => damaged(format!("its pickle closes a group that is not open, at byte {}", self.at)),
        }
    }

    pub(super) fn node_of(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(at) => self.nodes.get(at as usize),
            _ => None,
        }
    }

    fn node_mut(&mut self, value: Value) -> Option<&mut Node> {
        match value {
            Value::Node(at) => self.nodes.get_mut(at as usize),
            _ => None,
        }
    }

    // Opcodes

    fn number(&mut self, op: u8) -> Result<()> {
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(u8::from_le_bytes(self.array()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'I' => text_int(self.line()?)?,
            _ => {
                let len =
                    if op == 0x8a { self.array::<1>()?[0].into() } else { u32::from_le_bytes(self.array()?) };
                let digits = self.take(len.into())?;
                let Some(value) = long(digits) else { return self.node(Node::Opaque) };
                value
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn string(&mut self, op: u8) -> Result<()> {
        let len = match op {
            0x8c | b'U' | b'C' => self.array::<1>()?[0].into(),
            0x8d | 0x8e | 0x96 => u64::from_le_bytes(self.array()?),
            _ => u32::from_le_bytes(self.array()?).into(),
        };
        let bytes = self.take(len)?;
        let is_text = matches!(op, b'X' | 0x8c | 0x8d | b'T' | b'U');
        match std::str::from_utf8(bytes) {
            Ok(text) if is_text => self.node(Node::Str(text.into())),
            _ => self.node(Node::Opaque),
        }
    }

    fn container(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b')' => Node::Tuple(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b']' | 0x8f => Node::List(Vec::new()),
            b't' => Node::Tuple(self.pop_to_mark()?),
            b'l' | 0x91 => Node::List(self.pop_to_mark()?),
            b'd' => Node::Dict(pairs(&self.pop_to_mark()?)?),
            _ => {
                let mut items = vec![Value::None; usize::from(op - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                Node::Tuple(items)
            }
        };
        self.node(node)
    }

    /// Adds items to the container below them. Items of an opaque object are kept if they are pairs.
    fn fill(&mut self, op: u8) -> Result<()> {
        let mut added = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        let is_pairs = matches!(op, b's' | b'u');
        let at = self.at;
        let target = self.top()?;
        match self.node_mut(target) {
            Some(Node::List(items)) if !is_pairs => items.append(&mut added),
            Some(Node::Dict(items) | Node::Object { items, .. }) if is_pairs => {
                items.append(&mut pairs(&added)?);
            }
            Some(Node::Object { .. }) => {}
            _ => return damaged(format!("its pickle fills a value that is no container, at byte {at}")),
        }
        Ok(())
    }

    fn shuffle(&mut self, op: u8) -> Result<()> {
        match op {
            // As in Python, a pop with nothing above the mark takes the mark.
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            _ => self.stack.push(self.top()?),
        }
        Ok(())
    }

    fn remember(&mut self, op: u8) -> Result<()> {
        let slot = match op {
            b'q' | b'h' => self.array::<1>()?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            0x94 => self.memo.len() as u32,
            _ => self.line()?.trim().parse().or_else(|_| damaged("its pickle has a bad memo number"))?,
        };
        if matches!(op, b'h' | b'j' | b'g') {
            let Some(value) = self.memo.get(&slot) else {
                return damaged(format!("its pickle recalls value {slot}, which it did not store"));
            };
            self.stack.push(*value);
        } else if self.memo.len() < MAX_NODES {
            self.memo.insert(slot, self.top()?);
        } else {
            return unsupported(format!(
                "its pickle stores over {MAX_NODES} values; save the state dict alone"
            ));
        }
        Ok(())
    }

    fn global(&mut self, op: u8) -> Result<()> {
        let name = if op == b'c' {
            let module = short(self.line()?)?;
            format!("{module}.{}", short(self.line()?)?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.node_of(module), self.node_of(name)) {
                (Some(Node::Str(module)), Some(Node::Str(name))) => {
                    format!("{}.{}", short(module)?, short(name)?)
                }
                _ => return damaged("its pickle names a class by something that is no text"),
            }
        };
        self.node(Node::Global(name.into()))
    }

    fn object(&mut self, op: u8) -> Result<()> {
        if op == b'Q' {
            let id = self.pop()?;
            let storage = self.storage(id)?;
            return self.node(Node::Storage(storage));
        }
        if op == b'b' {
            let (state, target) = (self.pop()?, self.top()?);
            // A dict's attributes (a state dict's `_metadata`) are not entries, so they are dropped.
            if let Some(Node::Object { state: slot, .. }) = self.node_mut(target) {
                *slot = state;
            }
            return Ok(());
        }
        if op == 0x92 {
            self.pop()?; // keyword arguments
        }
        let (args, class) = (self.pop()?, self.pop()?);
        if op == b'R' { self.call(class, args) } else { self.opaque(class) }
    }

    pub(super) fn opaque(&mut self, class: Value) -> Result<()> {
        self.node(Node::Object { class, items: Vec::new(), state: Value::None })
    }
}

fn pairs(flat: &[Value]) -> Result<Vec<(Value, Value)>> {
    let (pairs, rest) = flat.as_chunks::<2>();
    if rest.is_empty() {
        return Ok(pairs.iter().map(|&[key, value]| (key, value)).collect());
    }
    damaged("a dict of its pickle has a key without a value")
}

/// Protocol 0 writes booleans as the integers 00 and 01.
fn text_int(line: &str) -> Result<Value> {
    match line.trim() {
        "00" => Ok(Value::Bool(false)),
        "01" => Ok(Value::Bool(true)),
        digits => digits.parse().map(Value::Int).or_else(|_| damaged("its pickle has a bad integer")),
    }
}

/// A little-endian two's-complement integer, or `None` if it needs more than 8 bytes.
fn long(digits: &[u8]) -> Option<Value> {
    if digits.len() > 8 {
        return None;
    }
    let negative = digits.last().is_some_and(|b| b & 0x80 != 0);
    let mut bytes = [if negative { 0xff } else { 0 }; 8];
    bytes[..digits.len()].copy_from_slice(digits);
    Some(Value::Int(i64::from_le_bytes(bytes)))
}
