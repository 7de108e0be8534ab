//! A block of a stack: its sub-layers one after the other, whose activations are kept for the backward pass, or
//! computed again there from the block's input (gradient checkpointing, Chen et al. 2016): then what a batch keeps is
//! the input of each block, and the activations of one.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor, Var};

use super::attention::Attention;
use super::feed_forward::FeedForwardLayer;
use super::{ForBackward, Values, argument};

type Result<T> = candle_core::Result<T>;

/// The sub-layers of a block.
pub struct Block {
    pub attention: Attention,
    /// To the encoder's states, in a decoder that reads them.
    pub cross: Option<Attention>,
    /// Without its residual where the adapter is inside.
    pub feed_forward: FeedForwardLayer,
    pub adapter: Option<FeedForwardLayer>,
}

impl Block {
    /// `x` `[tokens, d_model]` -> the same shape. `memory` are the encoder's states.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn apply(self, x: &Tensor, memory: Option<&Tensor>) -> Result<Tensor> {
        let mut x = x.apply_op1(self.attention)?;
        if let (Some(cross), Some(memory)) = (self.cross, memory) {
            x = x.apply_op2(memory, cross)?;
        }
        match self.adapter {
            None => x.apply_op1(self.feed_forward),
            Some(adapter) if self.feed_forward.residual => x.apply_op1(self.feed_forward)?.apply_op1(adapter),
            Some(adapter) => {
                let y = x.apply_op1(self.feed_forward)?;
                x + y.apply_op1(adapter)?
            }
        }
    }
}

/// A block whose activations are computed twice; [`CustomOp1`] without a memory, [`CustomOp2`] with one.
pub struct Recomputed {
    /// Keeps nothing.
    forward: ForBackward<Block>,
    /// The same block of the same pass, which keeps what its backward pass needs.
    backward: ForBackward<Block>,
}

impl Recomputed {
    /// Two of one block: the first one's pass is not training, the second one's is, with the same dropout.
    pub fn new(forward: Block, backward: Block) -> Recomputed {
        Recomputed { forward: ForBackward::holding(forward), backward: ForBackward::holding(backward) }
    }

    /// As [`Block::apply`].
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn apply(self, x: &Tensor, memory: Option<&Tensor>) -> Result<Tensor> {
        match memory {
            None => x.apply_op1(self),
            Some(memory) => x.apply_op2(memory, self),
        }
    }

    fn forward(&self, x: Tensor, memory: Option<Tensor>) -> Result<(CpuStorage, Shape)> {
        let out = self.forward.take("block")?.apply(&x, memory.as_ref())?;
        let values = Values::new(&out)?.to_vec();
        Ok((CpuStorage::F32(values), out.shape().clone()))
    }

    /// Gradients of `x` and of the memory. The sub-layers add those of parameters to the shared ones.
    fn backward(&self, x: &Tensor, memory: Option<&Tensor>, gradient: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let x = Var::from_tensor(x)?;
        let memory = memory.map(Var::from_tensor).transpose()?;
        let out = self.backward.take("block")?.apply(x.as_tensor(), memory.as_deref())?;
        // The gradient of this sum is the one that came in.
        let gradients = (out * gradient.detach())?.sum_all()?.backward()?;
        let of = |var: &Var| match gradients.get(var.as_tensor()) {
            Some(gradient) => Ok(gradient.clone()),
            None => var.as_tensor().zeros_like(),
        };
        Ok((of(&x)?, memory.as_ref().map(of).transpose()?))
    }
}

/// A copy of an operation's argument.
fn copied(storage: &CpuStorage, layout: &Layout) -> Result<Tensor> {
    Tensor::from_slice(argument(storage, layout)?, layout.shape(), &candle_core::Device::Cpu)
}

impl CustomOp1 for Recomputed {
    fn name(&self) -> &'static str {
        "recomputed block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(copied(x, layout)?, None)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(x, None, gradient)?.0))
    }
}

impl CustomOp2 for Recomputed {
    fn name(&self) -> &'static str {
        "recomputed block of a decoder"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        memory: &CpuStorage,
        memory_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(copied(x, x_layout)?, Some(copied(memory, memory_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        memory: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, d_memory) = self.backward(x, Some(memory), gradient)?;
        Ok((Some(dx), d_memory))
    }
}
