/** A small matrix in float64: rows of numbers. */
export type Matrix = readonly (readonly number[])[];

/** The identity of so many rows. */
export function identity(size: number): Matrix {
  return Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => (i === j ? 1 : 0)));
}

/** Rows become columns. */
export function transposed(a: Matrix): Matrix {
  return (a[0] ?? []).map((_, column) => a.map((row) => row[column] ?? 0));
}

/** The product of two matrices. */
export function multiply(a: Matrix, b: Matrix): Matrix {
  const columns = transposed(b);
  return a.map((row) =>
    columns.map((column) => row.reduce((sum, value, i) => sum + value * (column[i] ?? 0), 0)),
  );
}

/** Every element times a number. */
export function scaled(a: Matrix, factor: number): Matrix {
  return a.map((row) => row.map((value) => value * factor));
}

/** Eigenvalues of a symmetric matrix, the largest first, and its eigenvectors as columns in their order. */
export interface Eigen {
  readonly values: readonly number[];
  readonly vectors: Matrix;
}

const sweeps = 60;

/** Jacobi's method (Golub & Van Loan 2013, section 8.5): rotations that take each pair's product to zero in turn. */
export function symmetricEigen(symmetric: Matrix): Eigen {
  const size = symmetric.length;
  let [a, vectors] = [symmetric, identity(size)];
  const largest = Math.max(...symmetric.flat().map(Math.abs));
  for (let sweep = 0; sweep < sweeps; sweep++) {
    const off = Math.max(...a.flatMap((row, i) => row.map((value, j) => (i === j ? 0 : Math.abs(value)))));
    if (off <= 1e-14 * largest) break;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        const rotation = rotationOf(a, p, q);
        if (rotation === undefined) continue;
        a = turnedRows(transposed(turnedRows(a, p, q, rotation)), p, q, rotation);
        vectors = turnedRows(vectors, p, q, rotation);
      }
    }
  }
  // Rows of `vectors` are eigenvectors so far.
  const order = vectors
    .map((row, i) => ({ row, value: a[i]?.[i] ?? 0 }))
    .sort((one, other) => other.value - one.value);
  return { values: order.map(({ value }) => value), vectors: transposed(order.map(({ row }) => row)) };
}

interface Rotation {
  readonly cosine: number;
  readonly sine: number;
}

/** The rotation of rows and columns p and q that makes their product 0, or undefined where it is. */
function rotationOf(a: Matrix, p: number, q: number): Rotation | undefined {
  const [pp, pq, qq] = [a[p]?.[p] ?? 0, a[p]?.[q] ?? 0, a[q]?.[q] ?? 0];
  if (pq === 0) return undefined;
  const theta = (qq - pp) / (2 * pq);
  const tangent = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const cosine = 1 / Math.hypot(tangent, 1);
  return { cosine, sine: tangent * cosine };
}

function turnedRows(a: Matrix, p: number, q: number, { cosine, sine }: Rotation): Matrix {
  const [first = [], second = []] = [a[p], a[q]];
  return a.map((row, i) => {
    if (i === p) return first.map((value, j) => cosine * value - sine * (second[j] ?? 0));
    if (i === q) return first.map((value, j) => sine * value + cosine * (second[j] ?? 0));
    return row;
  });
}

/** A power of a symmetric matrix whose eigenvalues are above 0. */
export function symmetricPower(symmetric: Matrix, exponent: number): Matrix {
  const { values, vectors } = symmetricEigen(symmetric);
  const weighted = vectors.map((row) => row.map((value, i) => value * (values[i] ?? 0) ** exponent));
  return multiply(weighted, transposed(vectors));
}
