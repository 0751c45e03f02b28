"""Who asks, as far as it was proven: by a signed token, by a certificate, or by a header that a trusted peer sets.

What a request says of its user in its body or in a header that anybody can set is no proof, and is not looked at here.
"""
