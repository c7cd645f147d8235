"""Gets datasets ready for use, from what a user holds. Nothing is downloaded.

prepare.py      one dataset: unpack, build, check
archive.py      finds the dataset in an archive and moves it into place
unpack.py       unpacks zip and tar archives, trusting nothing in them
builders.py     builds the folders of CUHK03, Occluded-Duke and the synthetic dataset
from_folder.py  makes a dataset of a folder of images: table, card, link
split.py        reads identities and cameras off paths, and splits by identity
"""
