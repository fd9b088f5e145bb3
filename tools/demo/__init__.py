"""`alexnet-demo`: a local web page that shows what a net computes for a photo.

cli.py            the command: the socket, the server
crop.py           the photo before the offline stage, and the square that it keeps
inspect.py        the net's results for a photo, as arrays
html.py           these as HTML
templates/        the page's HTML and CSS
guard.py          the requests that the server accepts; deletion of uploads
page.py           the Gradio page; the only module that imports Gradio
"""
