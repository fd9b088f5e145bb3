"""Trained nets as files: load, export, convert.

safetensors_io.py  export as safetensors with a model card, and back
trained.py         a trained net, ready to use, from a checkpoint or an export
onnx_export.py     export as ONNX, compared with torch
convert.py         import of torchvision's and Caffe's weights
"""
