"""Files of other programs: what is in them, and which network it belongs to.

pickles.py    read pickles without running them
diffq.py      decode quantised weights
packages.py   Demucs' files: a network's class, its arguments, its weights
states.py     any format -> keys and tensors; tensors -> a network, strictly
family.py     how one architecture is told by its keys, read off its shapes, and translated
families.py   the names that authors and programs give to networks and hyper-parameters
msst.py       a checkpoint with the configuration of Music-Source-Separation-Training
vocal_remover.py  the older networks of Ultimate Vocal Remover, whose bands lie in other files
tensor_bundle.py, spleeter.py  TensorFlow's checkpoints, and Spleeter's in particular
foreign.py    bags, folders, files without configuration
"""
