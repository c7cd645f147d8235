#!/usr/bin/env bash
# Everything about GPUs that this repository could not check where it was written. On a machine with an NVIDIA GPU:
#
#     bash benchmarks/on_gpu.sh [DATASETS]       for example: bash benchmarks/on_gpu.sh ~/datasets
#
# It installs the project with mamba-ssm and causal-conv1d, tests it, measures it, and trains the three backbones with
# three seeds: on the datasets below the folder, else on generated people. The folder gpu/ gets the log, the tables, the
# records and the report. No step stops the others; a second call goes on where the first one stopped.
#
# Variables: STEPS="install checks" chooses steps, SEEDS and EPOCHS shorten training, LIMIT is the most minutes of a step.
# To rehearse on a machine without a GPU: DEVICE=cpu bash benchmarks/on_gpu.sh
set -ua # steps are shells of their own, which need the variables and functions
cd "$(dirname "$0")/.."
DATASETS=${1:-} DEVICE=${DEVICE:-cuda} OUT=gpu PY=.venv/bin/python
STEPS=${STEPS:-install machine checks scan study memory choices train report}
TESTS=${TESTS:-gpu} SEEDS=${SEEDS:-0,1,2} EPOCHS=${EPOCHS:-} LIMIT=${LIMIT:-600}
BACKBONES=reidmamba,transreid,bot SIZES=256x128,384x128 HEIGHTS=256,512,768,1024 BATCHES=1,8,64,128,256 TRAIN=64
PRECISIONS=fp32,bf16,fp16 RECIPE="--recipe unified" PAUSE=3 COMPILED=--compile
if [ "$DEVICE" = cpu ]; then # small, to try the script
    BACKBONES=reidmamba:tiny,transreid:demo,bot:demo SIZES=64x32 HEIGHTS= BATCHES=1 TRAIN=4 PRECISIONS=fp32
    RECIPE="--preset smoke" SEEDS=0 PAUSE=0.1 COMPILED=
fi
WHERE="--results $OUT/results --report $OUT/report.md --no-mlflow --device $DEVICE"
mkdir -p "$OUT"

install() { make .venv/.ready; }
machine() {
    nvidia-smi
    $PY -c "from harness.records import environment; import json; print(json.dumps(environment.capture('$DEVICE'), indent=1))"
}
checks() { $PY -m pytest -m "$TESTS" --junitxml "$OUT/tests.xml"; }
scan() {
    if [ "$DEVICE" = cpu ]; then $PY -m benchmarks.gpu_launches; else $PY benchmarks/gpu_scan.py --install --batch "$TRAIN"; fi
}
study() {
    $PY -m harness profile --backbones "$BACKBONES" --image-size "$SIZES" --batch "$BATCHES" --train-batch "$TRAIN" \
        --heights "$HEIGHTS" --precision "$PRECISIONS" $COMPILED --seconds "$PAUSE" $WHERE
}
choices() {
    if [ "$DEVICE" = cpu ]; then $PY -m benchmarks.loops --tiny; else $PY -m benchmarks.loops --device cuda --batch 64; fi
    $PY -m benchmarks.loader --threads 8
    if [ "$DEVICE" = cuda ]; then $PY -m benchmarks.corruptions --device cuda --images 1024; fi
}
memory() {
    if [ "$DEVICE" = cuda ]; then $PY -m benchmarks.training_memory --device cuda --batch 64; fi
}
train() {
    local epochs=() data=(--data-root "$DATASETS" --datasets all)
    [ -n "$EPOCHS" ] && epochs=(--set "training.epochs=$EPOCHS")
    if [ -z "$DATASETS" ] && [ "$DEVICE" = cuda ]; then
        $PY -c "from datasets.synthetic import generate; generate('$OUT/people', layouts=['market1501'], scale='demo', size=(128, 64), workers=8)"
        data=(--data-root "$OUT/people" --datasets market1501 --from-scratch)
    elif [ "$DEVICE" = cpu ]; then
        data=(--datasets market1501)
    fi
    $PY -m harness run --backbones "$BACKBONES" "${data[@]}" $RECIPE --seeds "$SEEDS" "${epochs[@]}" $WHERE
}
report() { $PY -m harness report --results "$OUT/results" --out "$OUT/report.md" && $PY -m harness claims --results "$OUT/results"; }

for name in $STEPS; do
    began=$SECONDS
    printf '\n===== %s\n' "$name" | tee -a "$OUT/log.txt"
    timeout "$((60 * LIMIT))" bash -c "$name" 2>&1 | tee -a "$OUT/log.txt"
    printf '%s: exit code %d after %d s\n' "$name" "${PIPESTATUS[0]}" $((SECONDS - began)) | tee -a "$OUT/steps.txt"
done
printf '\n' && cat "$OUT/steps.txt"
