import { type DeviceName, type TestedDevice, testDevice } from '../app.ts';

/** What the test of a device found, where it can be used. */
export interface ProbeAnswer extends Partial<TestedDevice> {
  /** Why it cannot be used. */
  readonly problem?: string;
}

// The entry of a child process, which tests the device of its first argument and tells the parent.
if (process.send !== undefined) {
  const answer = await testDevice(process.argv[2] as DeviceName).then(
    (found): ProbeAnswer => found,
    (error: unknown): ProbeAnswer => ({ problem: oneLine(error) }),
  );
  process.send(answer, () => process.exit(0));
}

/** The first line of an error, shortened. */
function oneLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  // ONNX Runtime says it in a page of C++.
  if (message.includes('adapter_result'))
    return 'no adapter: there is no driver of Vulkan, Metal or Direct3D';
  const [line = ''] = message.split('\n');
  return line.length <= 200 ? line : `${line.slice(0, 199)}…`;
}
