import { type DeviceName, openExecutor } from '../../src/app.ts';
import { type Executor, precisions } from '../../src/executors/executor.ts';
import { openNvidiaExecutor } from '../../src/executors/nvidia/open.ts';

/** A device to take in place of the GPU, for dry runs of these scripts. */
const deviceVariable = 'GPU_SCRIPTS_DEVICE';

/** The executor of this machine's GPU, said on standard output; for a dry run that of the device that a variable names. */
export async function openForScript(given: string): Promise<Executor> {
  const precision = precisions.find((one) => one === given);
  if (precision === undefined) throw new Error(`precision ${given}: use one of ${precisions.join()}`);
  const instead = process.env[deviceVariable];
  if (instead !== undefined && instead !== 'nvidia') {
    console.log(`dry run on ${instead}`);
    return openExecutor(instead as DeviceName);
  }
  const executor = await openNvidiaExecutor({ precision });
  const { name, architecture, driverVersion } = executor.device;
  console.log(`${executor.name} on ${name}, ${architecture}, ${driverVersion}`);
  return executor;
}
