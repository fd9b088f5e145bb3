"""What a run is: recipes, learning rates, update rules, configurations. No data stream, no files.

    schedules.py  learning-rate schedules: plateau, steps, one cycle; early stopping
    diaries.py    the learning rates that the author changed by hand in 2012
    recipe.py     named recipes: source2012, paper, and their variants
    config.py     the configuration of one run; what --resume may change
    published.py  the paper's tables 1 and 2
    optim.py      the update rules: momentum of 2012, plain SGD
    setup.py      what a recipe means for a net: crop, first learning rate, optimizer

All but optim.py and setup.py are imported without torch.
"""
