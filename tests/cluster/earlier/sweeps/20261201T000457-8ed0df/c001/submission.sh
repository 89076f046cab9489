#!/bin/bash

# Parameters
#SBATCH --comment=pai-bench:20261201T000457-8ed0df:c001
#SBATCH --cpus-per-task=1
#SBATCH --error=/tmp/recorded---------------------------------------------------------------------------------------------------------------------------------------------------/results/state/sweeps/20261201T000457-8ed0df/c001/%j_0_log.err
#SBATCH --job-name=pai-bench:20261201T000457-8ed0df:c001
#SBATCH --mem=3G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/tmp/recorded---------------------------------------------------------------------------------------------------------------------------------------------------/results/state/sweeps/20261201T000457-8ed0df/c001/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=15

# setup
folder=/tmp/recorded---------------------------------------------------------------------------------------------------------------------------------------------------/results/state/sweeps/20261201T000457-8ed0df/c001
task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; task=${task:-$SLURM_JOB_ID}
rm -f "$folder/$task"_*.save_tmp
[ -e "$folder/${task}_submitted.pkl" ] || { cp "$folder/task.pkl" "$folder/.$task-$$" && mv -n "$folder/.$task-$$" "$folder/${task}_submitted.pkl"; }
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /tmp/recorded---------------------------------------------------------------------------------------------------------------------------------------------------/results/state/sweeps/20261201T000457-8ed0df/c001/%j_%t_log.out --error /tmp/recorded---------------------------------------------------------------------------------------------------------------------------------------------------/results/state/sweeps/20261201T000457-8ed0df/c001/%j_%t_log.err --ntasks=1 PYTHON -u -m submitit.core._submit /tmp/recorded---------------------------------------------------------------------------------------------------------------------------------------------------/results/state/sweeps/20261201T000457-8ed0df/c001
