"""Prepares datasets from archives, folders and files of the user. It does not download anything.

prepare.py      prepares one dataset: unpack, build, check
archive.py      finds the dataset in an archive and moves it into place
unpack.py       unpacks untrusted zip and tar archives
builders.py     builds the folders of CUHK03, Occluded-Duke and the synthetic dataset
from_folder.py  creates a dataset from a folder of images: table, card, link
split.py        finds identities and cameras in paths, and splits by identity
"""
