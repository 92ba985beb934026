//! From a tape to tasks over slots of memory: what is done in place, and which halo every map has.

use crate::EngineError;
use crate::autodiff::{Gradient, Origin, Tape, TapeNode, TapeOp};
use crate::graph::{Binary, Conv2d, Op, ValueId};
use crate::plan::conv_halo;
use cardinal_kernels::{Activation, ConvSpec, DType, DataGrad, Halo, Map};

/// Memory for a value, by its place in [`Lowered::slots`].
pub(super) type SlotId = usize;

/// Memory for a value, and for those that take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) map: Map,
    pub(super) dtype: DType,
    /// Whether there is a map for each image, or one.
    pub(super) batched: bool,
}

impl Slot {
    /// Bytes for `images` images.
    pub(super) fn bytes(&self, images: usize) -> usize {
        self.map.image() * self.dtype.bytes() * if self.batched { images } else { 1 }
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Takes the caller's images in: the input's index.
    Input(usize),
    /// Hands a result out: the output's index.
    Output(usize),
    /// Takes the gradient of an output in: the output's index.
    OutputGradient(usize),
    /// Zeros the halo of what it writes.
    Halo,
    /// Copies.
    Copy,
    /// Adds what it reads to what it writes.
    Sum,
    /// Runs a node of the tape.
    Node(usize),
}

/// One step before its kernel is built.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) job: Job,
    pub(super) reads: Vec<SlotId>,
    pub(super) writes: Vec<SlotId>,
    /// Which of the node's inputs the first slot that is written holds before; it is not among `reads`.
    pub(super) in_place: Option<usize>,
    /// Whether the result is added to what the first slot holds.
    pub(super) add: bool,
    /// The node whose batch statistics a convolution gathers from what it writes: mean and variance are the slots that
    /// it writes after its result.
    pub(super) statistics: Option<usize>,
}

/// A tape as tasks over slots.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) slots: Vec<Slot>,
    pub(super) tasks: Vec<Task>,
    /// Tasks of the forward pass.
    pub(super) forward: usize,
    /// The slot of each value that has one.
    pub(super) slot_of: Vec<Option<SlotId>>,
}

/// Lowers `tape` with feature maps in `dtype`; vectors and statistics are `f32`.
pub(super) fn lower(tape: &Tape, dtype: DType) -> Result<Lowered, EngineError> {
    let mut lowering = Lowering {
        tape,
        dtype,
        last: last_reads(tape),
        halos: halos(tape)?,
        lowered: Lowered { slots: vec![], tasks: vec![], forward: 0, slot_of: vec![None; tape.values.len()] },
        members: Vec::new(),
    };
    for (index, &id) in tape.inputs.iter().enumerate() {
        let slot = lowering.fresh(id)?;
        lowering.emit(Job::Input(index), vec![], vec![slot]);
    }
    for index in 0..tape.nodes.len() {
        if index == tape.forward {
            lowering.turn()?;
        }
        lowering.node(index)?;
    }
    if tape.forward == tape.nodes.len() {
        lowering.turn()?;
    }
    Ok(with_halos(lowering.lowered))
}

struct Lowering<'a> {
    tape: &'a Tape,
    dtype: DType,
    /// When each value is read last: node `i` reads at `2 i + 1`, the caller at `2 forward`.
    last: Vec<usize>,
    halos: Vec<Halo>,
    lowered: Lowered,
    /// The values of each slot.
    members: Vec<Vec<ValueId>>,
}

fn last_reads(tape: &Tape) -> Vec<usize> {
    let mut last = vec![0; tape.values.len()];
    for (index, node) in tape.nodes.iter().enumerate() {
        node.inputs.iter().chain(&node.onto).for_each(|id| last[id.0] = 2 * index + 1);
    }
    for id in &tape.outputs {
        last[id.0] = last[id.0].max(2 * tape.forward);
    }
    last
}

impl Lowering<'_> {
    /// A slot of its own for a value.
    fn fresh(&mut self, id: ValueId) -> Result<SlotId, EngineError> {
        let slot = self.temporary(id)?;
        self.assign(id, slot);
        Ok(slot)
    }

    /// A slot of the value's size that holds nothing yet.
    fn temporary(&mut self, id: ValueId) -> Result<SlotId, EngineError> {
        let value = &self.tape.values[id.0];
        let map = match value.batched {
            true => map_of(self.tape, id)?.with_halo(self.halos[id.0]),
            false => Map::new(1, 1, value.elements()),
        };
        let dtype = if value.vector || !value.batched { DType::F32 } else { self.dtype };
        self.lowered.slots.push(Slot { map, dtype, batched: value.batched });
        self.members.push(Vec::new());
        Ok(self.lowered.slots.len() - 1)
    }

    /// Puts a value into a slot, whose halo becomes what the value's readers need as well.
    fn assign(&mut self, id: ValueId, slot: SlotId) {
        let map = &mut self.lowered.slots[slot].map;
        map.halo = map.halo.union(self.halos[id.0]);
        self.members[slot].push(id);
        self.lowered.slot_of[id.0] = Some(slot);
    }

    fn slot(&self, id: ValueId) -> Option<SlotId> {
        self.lowered.slot_of[id.0]
    }

    /// Whether nothing reads the slot's values after node `index`.
    fn dead(&self, slot: SlotId, index: usize) -> bool {
        self.members[slot].iter().all(|id| self.last[id.0] <= 2 * index + 1)
    }

    fn emit(&mut self, job: Job, reads: Vec<SlotId>, writes: Vec<SlotId>) {
        self.lowered.tasks.push(Task { job, reads, writes, in_place: None, add: false, statistics: None });
    }

    /// Has the convolution that was lowered last gather the statistics of what it writes, if those are wanted.
    fn gather_statistics(&mut self, index: usize) -> Result<bool, EngineError> {
        let node = &self.tape.nodes[index];
        let input = self.slot(node.inputs[0]);
        let follows = self.lowered.tasks.last().is_some_and(|task| match task.job {
            Job::Node(before) => {
                matches!(self.tape.nodes[before].op, TapeOp::Forward(Op::Conv2d(_)))
                    && task.writes.len() == 1
                    && task.writes.first().copied() == input
            }
            _ => false,
        });
        if !follows {
            return Ok(false);
        }
        let places = [self.fresh(node.outputs[0])?, self.fresh(node.outputs[1])?];
        if let Some(task) = self.lowered.tasks.last_mut() {
            task.writes.extend(places);
            task.statistics = Some(index);
        }
        Ok(true)
    }

    /// Between the passes.
    fn turn(&mut self) -> Result<(), EngineError> {
        for (index, &id) in self.tape.outputs.iter().enumerate() {
            let slot = self
                .slot(id)
                .ok_or_else(|| EngineError::graph(&self.tape.name, "an output is not computed"))?;
            self.emit(Job::Output(index), vec![slot], vec![]);
        }
        self.lowered.forward = self.lowered.tasks.len();
        for (index, &id) in self.tape.output_gradients.iter().enumerate() {
            let slot = self.fresh(id)?;
            self.emit(Job::OutputGradient(index), vec![], vec![slot]);
        }
        Ok(())
    }

    fn node(&mut self, index: usize) -> Result<(), EngineError> {
        let tape = self.tape;
        let node = &tape.nodes[index];
        if let (TapeOp::Forward(Op::Reshape { .. }), None) = (&node.op, node.onto) {
            return self.reshape(node);
        }
        if matches!(node.op, TapeOp::Statistics) && self.gather_statistics(index)? {
            return Ok(());
        }
        if let TapeOp::Forward(Op::Binary(Binary::Add)) = node.op
            && index >= tape.forward
        {
            return self.sum(index, node.inputs[0], node.inputs[1], node.outputs[0]);
        }
        // The gradients of parameters lie elsewhere.
        let batched: Vec<_> = node.outputs.iter().filter(|id| self.has_slot(node, **id)).copied().collect();
        let Some((&first, others)) = batched.split_first() else {
            let reads = self.reads(node, None);
            self.emit(Job::Node(index), reads, vec![]);
            return Ok(());
        };
        let (mut in_place, mut add, mut later) = (None, false, None);
        let target = match node.onto {
            Some(onto) if adds(&node.op) => {
                add = true;
                let mut target = self.taken_over(index, onto, first)?;
                // A gradient that went two ways may come back to itself.
                if node.inputs.iter().any(|id| self.slot(*id) == Some(target)) {
                    let copy = self.temporary(first)?;
                    self.emit(Job::Copy, vec![target], vec![copy]);
                    target = copy;
                }
                self.assign(first, target);
                target
            }
            onto => {
                let candidate = in_place_input(&node.op).filter(|&input| {
                    let slot = self.slot(node.inputs[input]);
                    slot.is_some_and(|slot| {
                        // Read once, and by nothing later.
                        let once = node.inputs.iter().filter(|id| self.slot(**id) == Some(slot)).count() == 1;
                        once && self.dead(slot, index)
                    })
                });
                let target = match candidate.and_then(|input| self.slot(node.inputs[input])) {
                    Some(slot) => {
                        in_place = candidate;
                        slot
                    }
                    None => self.temporary(first)?,
                };
                match onto {
                    None => self.assign(first, target),
                    Some(onto) => later = Some(onto),
                }
                target
            }
        };
        let mut writes = vec![target];
        for &other in others {
            writes.push(self.fresh(other)?);
        }
        let reads = self.reads(node, in_place);
        self.lowered.tasks.push(Task {
            job: Job::Node(index),
            reads,
            writes,
            in_place,
            add,
            statistics: None,
        });
        if let Some(onto) = later {
            let sum = self.taken_over(index, onto, first)?;
            self.assign(first, sum);
            self.emit(Job::Sum, vec![target], vec![sum]);
        }
        Ok(())
    }

    /// Whether an output of `node` lies in a slot: all but the gradients of parameters do.
    fn has_slot(&self, node: &TapeNode, id: ValueId) -> bool {
        self.tape.values[id.0].batched || matches!(node.op, TapeOp::Statistics)
    }

    fn reads(&self, node: &TapeNode, in_place: Option<usize>) -> Vec<SlotId> {
        let inputs = node.inputs.iter().enumerate().filter(|(i, _)| Some(*i) != in_place);
        inputs.filter_map(|(_, id)| self.slot(*id)).collect()
    }

    /// The slot of `before` if nothing needs that any more, or a copy of it.
    fn taken_over(
        &mut self,
        index: usize,
        before: ValueId,
        for_value: ValueId,
    ) -> Result<SlotId, EngineError> {
        let slot = self.slot(before).ok_or_else(|| self.shared_parameter(index))?;
        if self.dead(slot, index) {
            return Ok(slot);
        }
        let copy = self.temporary(for_value)?;
        self.emit(Job::Copy, vec![slot], vec![copy]);
        Ok(copy)
    }

    /// The sum of two gradients, in the place of one if that may be.
    fn sum(&mut self, index: usize, a: ValueId, b: ValueId, to: ValueId) -> Result<(), EngineError> {
        let (Some(first), Some(second)) = (self.slot(a), self.slot(b)) else {
            return Err(self.shared_parameter(index));
        };
        let (target, other) = if first == second {
            let copy = self.temporary(to)?;
            self.emit(Job::Copy, vec![first], vec![copy]);
            (copy, first)
        } else if self.dead(second, index) && !self.dead(first, index) {
            (second, first)
        } else {
            (self.taken_over(index, a, to)?, second)
        };
        self.assign(to, target);
        self.emit(Job::Sum, vec![other], vec![target]);
        Ok(())
    }

    fn shared_parameter(&self, index: usize) -> EngineError {
        let node = &self.tape.nodes[index];
        EngineError::graph(&node.name, "a parameter that several layers share cannot be trained")
    }

    /// Forms of a vector share its memory.
    fn reshape(&mut self, node: &TapeNode) -> Result<(), EngineError> {
        let (from, to) = (node.inputs[0], node.outputs[0]);
        let (a, b) = (map_of(self.tape, from)?, map_of(self.tape, to)?);
        let slot = self.slot(from).filter(|_| a.h * a.w == 1 && b.h * b.w == 1 && a.c == b.c);
        let Some(slot) = slot else {
            let shapes = format!("{:?} to {:?}", self.tape.shape(from), self.tape.shape(to));
            return Err(EngineError::graph(&node.name, format!("the runtime cannot reshape {shapes}")));
        };
        self.assign(to, slot);
        Ok(())
    }
}

/// Which input of an operator its result may replace.
fn in_place_input(op: &TapeOp) -> Option<usize> {
    match op {
        TapeOp::Forward(Op::ActivatedNorm { .. }) | TapeOp::Join { .. } | TapeOp::Drop { .. } => Some(0),
        TapeOp::Gradient(
            Gradient::Activation { .. } | Gradient::Norm { .. } | Gradient::FixedNorm { .. },
        ) => Some(1),
        TapeOp::Gradient(Gradient::GateInput { .. }) => Some(0),
        _ => None,
    }
}

/// Whether the kernel of an operator can add to what is there.
fn adds(op: &TapeOp) -> bool {
    matches!(
        op,
        TapeOp::Gradient(
            Gradient::Activation { .. }
                | Gradient::Norm { .. }
                | Gradient::FixedNorm { .. }
                | Gradient::MaxPool(_)
                | Gradient::AvgPool { .. }
                | Gradient::Means { .. }
                | Gradient::BlurPool
                | Gradient::Pad(_)
                | Gradient::SplitInput { .. }
                | Gradient::GateInput { .. }
        )
    )
}

/// Adds a task behind the first one that writes each slot with a halo.
fn with_halos(lowered: Lowered) -> Lowered {
    let Lowered { slots, tasks, mut forward, slot_of } = lowered;
    let mut filled = vec![false; slots.len()];
    let mut all = Vec::with_capacity(tasks.len());
    let split = forward;
    for (index, task) in tasks.into_iter().enumerate() {
        let writes = task.writes.clone();
        all.push(task);
        for slot in writes {
            if !std::mem::replace(&mut filled[slot], true) && slots[slot].map.halo != Halo::default() {
                all.push(Task {
                    job: Job::Halo,
                    reads: vec![],
                    writes: vec![slot],
                    in_place: None,
                    add: false,
                    statistics: None,
                });
                forward += usize::from(index < split);
            }
        }
    }
    Lowered { slots, tasks: all, forward, slot_of }
}

/// The map that a value is.
pub(super) fn map_of(tape: &Tape, id: ValueId) -> Result<Map, EngineError> {
    match *tape.shape(id) {
        [1, c, h, w] => Ok(Map::new(h, w, c)),
        [1, c] => Ok(Map::new(1, 1, c)),
        ref shape => {
            let name = format!("value {} {:?}", id.0, tape.values[id.0].name);
            Err(EngineError::graph(name, format!("the runtime has no place for the shape {shape:?}")))
        }
    }
}

/// The halo that each value's readers need.
fn halos(tape: &Tape) -> Result<Vec<Halo>, EngineError> {
    let mut halos = vec![Halo::default(); tape.values.len()];
    let mut need = |id: ValueId, halo: Halo| halos[id.0] = halos[id.0].union(halo);
    for node in &tape.nodes {
        let gradient = |at: usize| node.outputs.get(at).copied();
        match &node.op {
            TapeOp::Forward(Op::Conv2d(conv)) => {
                let (x, y) = (map_of(tape, node.inputs[0])?, map_of(tape, node.outputs[0])?);
                need(node.inputs[0], conv_halo(conv, &tape.shape(node.inputs[1])[2..], x, y));
            }
            TapeOp::Gradient(Gradient::ConvWeight(conv)) => {
                let (x, y) = (map_of(tape, node.inputs[0])?, map_of(tape, node.inputs[1])?);
                let Some(weight) = gradient(0) else { continue };
                need(node.inputs[0], conv_halo(conv, &tape.shape(weight)[2..], x, y));
            }
            TapeOp::Gradient(Gradient::ConvInput(conv)) => {
                let (y, x) = (map_of(tape, node.inputs[0])?, map_of(tape, node.outputs[0])?);
                let spec = conv_spec(conv, tape.shape(node.inputs[1]), x, y);
                let halo = DataGrad::halo(&spec)
                    .map_err(|source| EngineError::Kernel { place: node.name.clone(), source })?;
                need(node.inputs[0], halo);
            }
            _ => {}
        }
    }
    Ok(halos)
}

/// A convolution without what follows it, on an input with at least the halo that it needs.
pub(super) fn conv_spec(conv: &Conv2d, weight: &[usize], input: Map, output: Map) -> ConvSpec {
    let halo = input.halo.union(conv_halo(conv, &weight[2..], input, output));
    ConvSpec {
        input: input.with_halo(halo),
        output,
        kernel: [weight[2], weight[3]],
        stride: conv.stride,
        dilation: conv.dilation,
        padding: [conv.padding[0], conv.padding[1]],
        groups: conv.groups,
        activation: Activation::Identity,
        residual: None,
        pooled: false,
    }
}

/// Whether a value of the tape is a parameter of the network.
pub(super) fn parameter(tape: &Tape, id: ValueId) -> Option<ValueId> {
    match tape.values[id.0].origin {
        Origin::Parameter(constant) => Some(constant),
        _ => None,
    }
}
