"""One file per command, logic below it in pipeline and model.

    prep.py            alexnet-prep, and under it:
      sample_photos.py   sample-photos: labelled photos made from a seed
      sample_scene.py      what is on one of them
      build_lmdb.py      build-lmdb
      pca_stats.py       pca-stats
      info.py            info
      verify.py          verify, and --repair
      stage.py           stage
      export.py          export
      doctor.py          doctor: what is installed, and whether it fits together
      checks.py            its checks
      machine.py           the facts that they judge
    train.py           alexnet-train
      introduction.py    what it says first; lines.py, while it trains
      sharing.py         how many processes, and which way
      launch.py          starts them, passes signals on, says who failed
      tracking.py        TensorBoard, Weights & Biases
      max_stall.py       --max-stall: percentages, and the error at the end
    evaluate.py        alexnet-eval
      predictions.py     its submission file
    weights.py         alexnet-weights: export, import
    figures/           alexnet-figures: a folder with a map of its own
    demo.py            alexnet-demo: demo_page.py, Gradio's page; demo_guard.py, what it may be asked;
                         demo_uploads.py: what was uploaded, and its end;
                         demo_looks.py, demo_crop.py: what is seen; demo_html.py, in words and pictures
    bench.py           alexnet-bench, and under it:
      bench_prep.py      prep; prep_cases.py has what it measures
      bench_loader.py    loader; loader_*.py and rival*.py: what it measures; cold.py, an empty cache; bars.py, the plot
      bench_train.py     train; train_cases.py has what it measures
      table.py           table; table_rows.py, table_parts.py: our rows, what each part is worth
      measure.py         rounds, rows, tables, the machine

    outputs.py         where what a command writes may go
    console.py         errors to exit codes, progress, sizes and durations in words
    process.py         signals, memory and device of a training process
    utf8.py            every command in Python's UTF-8 mode, whatever the locale

Errors and exit codes are the same in all of them; see console.py.
"""
