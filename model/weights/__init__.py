"""Trained nets as files: load, export, convert.

safetensors_io.py  export as safetensors with a model card, and back
trained.py         a trained net, ready to use, from a checkpoint or an export
onnx_export.py     export as ONNX, compared with torch
convert.py         import of torchvision's, timm's and Caffe's weights
array_names.py     their arrays' names without the prefixes of wrappers
imported_head.py   whether their last layer is for a shard set's classes
foreign_input.py   what they subtract from a picture and divide it by
"""
