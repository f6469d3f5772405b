"""Attacks with tokens: each claims everything and must be answered 401, like a token that is nothing at all."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any


def part(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def make(
    secret: str, header: Any = None, claims: Any = None, *, digest: str = "sha256", **changes: Any
) -> str:
    """Sign a token; a change to None leaves the claim out."""
    whole = {
        "iss": "https://id.test/",
        "aud": "voice-agent",
        "sub": "mallory",
        "exp": int(time.time()) + 600,
        "scope": "call observe admin",
        **changes,
    }
    body = claims if claims is not None else {name: told for name, told in whole.items() if told is not None}
    signed = f"{part(header or {'alg': 'HS256', 'typ': 'JWT'})}.{part(body)}"
    signature = hmac.new(secret.encode(), signed.encode(), digest).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def attacks(secret: str) -> list[tuple[str, str]]:
    now = int(time.time())
    right = make(secret)
    head, body, signature = right.split(".")
    key = {"kty": "oct", "k": part("mine")}
    return [
        ("alg none", f"{part({'alg': 'none'})}.{body}."),
        ("alg NoNe", f"{part({'alg': 'NoNe'})}.{body}."),
        ("alg none, signed", f"{part({'alg': 'none'})}.{body}.{signature}"),
        ("no alg", make(secret, {"typ": "JWT"})),
        ("alg confusion RS256", make(secret, {"alg": "RS256"})),
        ("alg confusion ES256", make(secret, {"alg": "ES256"})),
        ("alg confusion EdDSA", make(secret, {"alg": "EdDSA"})),
        ("alg HS384", make(secret, {"alg": "HS384"}, digest="sha384")),
        ("alg HS512", make(secret, {"alg": "HS512"}, digest="sha512")),
        ("another secret", make("x" * 32)),
        ("an empty secret", make("")),
        ("the hash of the secret", make(hashlib.sha256(secret.encode()).hexdigest())),
        ("no signature", f"{head}.{body}."),
        ("two parts", f"{head}.{body}"),
        ("four parts", f"{right}.{signature}"),
        ("another body under the signature", f"{head}.{part({'sub': 'root', 'exp': now + 600})}.{signature}"),
        ("expired", make(secret, exp=now - 3600)),
        ("never expires", make(secret, exp=None)),
        ("expiry as text", make(secret, exp="tomorrow")),
        ("expiry without end", make(secret, claims=json.dumps({"exp": 1}).replace("1", "1e999"))),
        ("not yet", make(secret, nbf=now + 3600)),
        ("issued in the future", make(secret, iat=now + 3600)),
        ("another audience", make(secret, aud="billing")),
        ("no audience", make(secret, aud=None)),
        ("another issuer", make(secret, iss="https://evil.test/")),
        ("no subject", make(secret, sub=None)),
        ("a subject of control characters", make(secret, sub="a\r\nb")),
        ("claims that are a list", make(secret, claims="[1]")),
        ("a claim twice", make(secret, claims='{"sub":"a","sub":"b"}')),
        ("a critical extension", make(secret, {"alg": "HS256", "crit": ["x"], "x": 1})),
        ("a key of its own", make("mine", {"alg": "HS256", "jwk": key})),
        ("a key from elsewhere", make("mine", {"alg": "HS256", "jku": "http://127.0.0.1:1/keys"})),
        ("a key file by path", make("", {"alg": "HS256", "kid": "../../../../dev/null"})),
        ("another type", make(secret, {"alg": "HS256", "typ": "dpop+jwt"})),
        ("too large", make(secret, padding="x" * 9000)),
        ("nothing but dots", ".."),
    ]
