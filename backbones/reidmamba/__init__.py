"""ReIDMamba (arXiv 2511.07948) and its Mamba strong baseline."""
