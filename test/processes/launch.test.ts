import { expect, it } from 'vitest';
import { launchOf, launchVariables } from '../../src/processes/launch.ts';

const place = { address: 'gpu03', port: 29500 };

it('a process that nobody started with others is alone', () => {
  expect(launchOf({})).toBeUndefined();
  expect(launchOf({ RANK: '0', WORLD_SIZE: '1' })).toBeUndefined();
  // A batch script of Slurm is one process, whatever its job asked for.
  expect(launchOf({ SLURM_PROCID: '0', SLURM_NTASKS: '8', SLURM_JOB_ID: '7' })).toBeUndefined();
});

it('reads what torchrun says, and what it says itself', () => {
  const launch = { rank: 5, world: 8, localRank: 1, localWorld: 4, ...place };
  const variables = launchVariables(launch);
  expect(variables).toMatchObject({ RANK: '5', WORLD_SIZE: '8', LOCAL_RANK: '1', MASTER_PORT: '29500' });
  expect(launchOf(variables)).toEqual(launch);
});

it('reads what srun says: the first host of the list, a port by the job', () => {
  const slurm = {
    SLURM_PROCID: '9',
    SLURM_STEP_NUM_TASKS: '16',
    SLURM_LOCALID: '1',
    SLURM_STEP_TASKS_PER_NODE: '8(x2)',
    SLURM_JOB_ID: '123456',
  };
  const expected = { rank: 9, world: 16, localRank: 1, localWorld: 8, address: 'gpu03', port: 23456 };
  for (const list of ['gpu[03-05,9],login1', 'gpu03,gpu04', 'gpu03', 'gpu[03]'])
    expect(launchOf({ ...slurm, SLURM_STEP_NODELIST: list })).toEqual(expected);
  expect(launchOf({ ...slurm, MASTER_ADDR: 'here', MASTER_PORT: '7' })).toMatchObject({
    address: 'here',
    port: 7,
  });
});

it('reads what mpirun says', () => {
  const mpi = {
    OMPI_COMM_WORLD_RANK: '1',
    OMPI_COMM_WORLD_SIZE: '2',
    OMPI_COMM_WORLD_LOCAL_RANK: '1',
    OMPI_COMM_WORLD_LOCAL_SIZE: '2',
  };
  expect(launchOf({ ...mpi, MASTER_ADDR: 'gpu03', MASTER_PORT: '29500' })).toEqual({
    rank: 1,
    world: 2,
    localRank: 1,
    localWorld: 2,
    ...place,
  });
  expect(() => launchOf(mpi)).toThrow('nothing says where process 0 is; set MASTER_ADDR and MASTER_PORT');
});

it('refuses what cannot be', () => {
  const given = { MASTER_ADDR: 'a', MASTER_PORT: '1' };
  expect(() => launchOf({ ...given, RANK: '2', WORLD_SIZE: '2' })).toThrow('RANK is 2 of WORLD_SIZE 2');
  expect(() => launchOf({ ...given, RANK: 'x', WORLD_SIZE: '2' })).toThrow("RANK is 'x'");
  expect(() => launchOf({ RANK: '0', WORLD_SIZE: '2', MASTER_ADDR: 'a', MASTER_PORT: '' })).toThrow(
    "MASTER_PORT is ''",
  );
});
