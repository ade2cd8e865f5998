import { UserError } from '../errors.ts';

/** What a process is told of the others by whoever started it. */
export interface Launch {
  /** This process, 0 to `world - 1`. */
  readonly rank: number;
  /** How many there are on all machines; 1 when this is the only one. */
  readonly world: number;
  /** This process among those of its machine: which GPU is its own. */
  readonly localRank: number;
  /** Processes of this machine. */
  readonly localWorld: number;
  /** Host name or address of process 0, and the port on which it waits for the others. */
  readonly address: string;
  readonly port: number;
}

/** Names of environment variables. */
interface Names {
  readonly rank: string;
  readonly world: string;
  readonly localRank: string;
  readonly localWorld: string;
}

/** Those of torchrun, which others follow, of Slurm's `srun`, and of Open MPI's `mpirun`. */
const launchers: readonly Names[] = [
  { rank: 'RANK', world: 'WORLD_SIZE', localRank: 'LOCAL_RANK', localWorld: 'LOCAL_WORLD_SIZE' },
  {
    rank: 'SLURM_PROCID',
    // Set by srun alone: a batch script, which is one process, has SLURM_NTASKS too.
    world: 'SLURM_STEP_NUM_TASKS',
    localRank: 'SLURM_LOCALID',
    localWorld: 'SLURM_STEP_TASKS_PER_NODE',
  },
  {
    rank: 'OMPI_COMM_WORLD_RANK',
    world: 'OMPI_COMM_WORLD_SIZE',
    localRank: 'OMPI_COMM_WORLD_LOCAL_RANK',
    localWorld: 'OMPI_COMM_WORLD_LOCAL_SIZE',
  },
];

/** Ports of Slurm's jobs, one for each of so many jobs that follow each other. */
const slurmPorts = { first: 20_000, count: 10_000 };

/** The variables of a {@link Launch}, as torchrun names them. */
export function launchVariables(launch: Launch): Readonly<Record<string, string>> {
  return {
    RANK: String(launch.rank),
    WORLD_SIZE: String(launch.world),
    LOCAL_RANK: String(launch.localRank),
    LOCAL_WORLD_SIZE: String(launch.localWorld),
    MASTER_ADDR: launch.address,
    MASTER_PORT: String(launch.port),
  };
}

/**
 * What the environment says of how this process was started; undefined when it is alone.
 * @throws UserError when variables contradict each other, or nothing says where process 0 is.
 */
export function launchOf(environment: Readonly<Record<string, string | undefined>>): Launch | undefined {
  const names = launchers.find(
    ({ rank, world }) => environment[rank] !== undefined && environment[world] !== undefined,
  );
  if (names === undefined) return undefined;
  const world = wholeNumber(environment, names.world, 1);
  if (world === 1) return undefined;
  const rank = wholeNumber(environment, names.rank, 0);
  if (rank >= world)
    throw new UserError(
      `${names.rank} is ${rank} of ${names.world} ${world}; it must be less: mend how this process is started`,
    );
  const localRank =
    environment[names.localRank] === undefined ? 0 : wholeNumber(environment, names.localRank, 0);
  return {
    rank,
    world,
    localRank,
    localWorld: localWorldOf(environment, names),
    ...meetingPlace(environment),
  };
}

/** Slurm writes `8(x2)` for two machines of 8 processes, and `8,4` for machines that differ: the most is safe. */
function localWorldOf(
  environment: Readonly<Record<string, string | undefined>>,
  { localWorld }: Names,
): number {
  const counts = (environment[localWorld] ?? '1').replaceAll(/\(x\d+\)/g, '').split(',');
  const most = Math.max(...counts.map(Number));
  return Number.isSafeInteger(most) && most > 0 ? most : 1;
}

function meetingPlace(environment: Readonly<Record<string, string | undefined>>) {
  const { MASTER_ADDR, SLURM_STEP_NODELIST, SLURM_JOB_NODELIST, SLURM_JOB_ID } = environment;
  const nodes = SLURM_STEP_NODELIST ?? SLURM_JOB_NODELIST;
  const address = MASTER_ADDR ?? (nodes === undefined ? undefined : firstHost(nodes));
  const isPortKnown = environment.MASTER_PORT !== undefined;
  if (address === undefined || !(isPortKnown || SLURM_JOB_ID !== undefined))
    throw new UserError(
      'this is one of several processes, but nothing says where process 0 is; set MASTER_ADDR and MASTER_PORT',
    );
  const port = isPortKnown
    ? wholeNumber(environment, 'MASTER_PORT', 1)
    : slurmPorts.first + (Number(SLURM_JOB_ID) % slurmPorts.count);
  return { address, port };
}

/** The first host of Slurm's short form of a list: `gpu03` of `gpu[03-05,9],login1`. */
function firstHost(list: string): string {
  const [, before = list, inside] = /^([^[,]+)(?:\[([^\]]*)\])?/.exec(list) ?? [];
  return inside === undefined ? before : before + (/^[^,-]+/.exec(inside)?.[0] ?? '');
}

function wholeNumber(
  environment: Readonly<Record<string, string | undefined>>,
  name: string,
  least: number,
): number {
  const text = environment[name] ?? '';
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= least) return value;
  throw new UserError(`${name} is '${text}'; it must be a whole number from ${least} on`);
}
