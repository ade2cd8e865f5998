/** Writes the protocol buffer wire format: just the field kinds that ONNX models use. */
export class ProtobufWriter {
  private readonly parts: Uint8Array[] = [];
  private length = 0;

  /** A varint field; negative numbers take ten bytes of two's complement, as int64 does. */
  int(field: number, value: number | bigint): this {
    return this.varint(field << 3).varint(value);
  }

  /** A 32-bit float field. */
  float(field: number, value: number): this {
    return this.varint((field << 3) | 5).append(new Uint8Array(Float32Array.of(value).buffer));
  }

  /** A length-delimited field of raw bytes. */
  bytes(field: number, bytes: Uint8Array): this {
    return this.varint((field << 3) | 2)
      .varint(bytes.length)
      .append(bytes);
  }

  /** A UTF-8 string field. */
  string(field: number, text: string): this {
    return this.bytes(field, new TextEncoder().encode(text));
  }

  /** A nested message. */
  message(field: number, message: ProtobufWriter): this {
    this.varint((field << 3) | 2).varint(message.length);
    for (const part of message.parts) this.append(part);
    return this;
  }

  /** Everything written, in one array. */
  finish(): Uint8Array<ArrayBuffer> {
    const result = new Uint8Array(this.length);
    let position = 0;
    for (const part of this.parts) {
      result.set(part, position);
      position += part.length;
    }
    return result;
  }

  private varint(value: number | bigint): this {
    let rest = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    while (rest > 127n) {
      bytes.push(Number(rest & 127n) | 128);
      rest >>= 7n;
    }
    return this.append(Uint8Array.of(...bytes, Number(rest)));
  }

  private append(bytes: Uint8Array): this {
    this.parts.push(bytes);
    this.length += bytes.length;
    return this;
  }
}
