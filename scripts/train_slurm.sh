#!/bin/bash
# Training on several nodes by SLURM: sbatch scripts/train_slurm.sh experiment=star_polymer_51 [overrides of gnnm-train]
#
# One task a GPU; Lightning reads ranks and addresses from SLURM. The folders of data and outputs must be on a file
# system that all nodes see. Generate the data before (gnnm-generate): the other ranks wait while the first one does.
# Each process takes optimizer.batch_size graphs, so that a step sees that many times the number of GPUs.
#
# Without SLURM, on each node of two, with RANK 0 or 1 and HOST that of the first:
#   torchrun --nnodes=2 --nproc-per-node=4 --node-rank=$RANK --master-addr=$HOST --master-port=29500 \
#       -m gnn_metriplectic.commands.train experiment=star_polymer_51 trainer=ddp trainer.devices=4 trainer.num_nodes=2
#
#SBATCH --job-name=gnnm-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
set -euo pipefail

export OMP_NUM_THREADS=1
exec srun python -m gnn_metriplectic.commands.train \
    trainer=ddp trainer.devices="$SLURM_NTASKS_PER_NODE" trainer.num_nodes="$SLURM_NNODES" "$@"
