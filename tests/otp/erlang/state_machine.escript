#!/usr/bin/env escript
%% Runs the scenarios of a file of Erlang terms through gen_statem and prints the log of each as JSON, one a line,
%% as it is after so many ms:
%%
%%     escript state_machine.escript scenarios.terms 80 > outcomes.jsonl
%%
%% A scenario is {Id, Events}. An event is {Name, #{State => [Action]}}; the machine is suspended while all are sent.
%% Timeouts of a scenario are events too: their content is an event.
-mode(compile).
-behaviour(gen_statem).
-export([init/1, callback_mode/0, handle_event/4, terminate/3]).

main([File, WindowMs]) ->
    {ok, Scenarios} = file:consult(File),
    logger:set_primary_config(level, none),
    lists:foreach(fun(Scenario) -> run(Scenario, list_to_integer(WindowMs)) end, Scenarios).

run({Id, Events}, WindowMs) ->
    process_flag(trap_exit, true),
    {ok, Pid} = gen_statem:start_link(?MODULE, self(), []),
    sys:suspend(Pid),
    [gen_statem:cast(Pid, E) || E <- Events],
    sys:resume(Pid),
    timer:sleep(WindowMs),
    Alive = is_process_alive(Pid),
    unlink(Pid),
    exit(Pid, kill),
    io:format("{\"id\": ~b, \"alive\": ~s, \"log\": [~s]}~n",
              [Id, Alive, lists:join(", ", [["\"", L, "\""] || L <- logged()])]).

logged() ->
    receive {log, L} -> [L | logged()] after 0 -> [] end.

callback_mode() -> [handle_event_function, state_enter].

init(Logger) -> {ok, a, Logger}.

terminate(_, _, _) -> ok.

handle_event(enter, Old, State, Logger) ->
    log(Logger, "enter ~s from ~s", [State, Old]),
    keep_state_and_data;
handle_event(Type, {Name, By}, State, Logger) ->
    log(Logger, "~s ~s in ~s", [type(Type), Name, State]),
    Asked = maps:get(State, By, []),
    Actions = lists:flatmap(fun action/1, Asked),
    case [A || A <- Asked, is_tuple(A), element(1, A) =:= next_state] of
        [{next_state, Next}] -> {next_state, Next, Logger, Actions};
        [] ->
            case lists:member(repeat_state, Asked) of
                true -> {repeat_state, Logger, Actions};
                false -> {keep_state, Logger, Actions}
            end
    end.

type(cast) -> "cast";
type(internal) -> "internal";
type(state_timeout) -> "state_timeout";
type(timeout) -> "event_timeout";
type({timeout, Name}) -> ["named_timeout ", atom_to_list(Name)].

action({next_state, _}) -> [];
action(repeat_state) -> [];
action(postpone) -> [postpone];
action({next_event, E}) -> [{next_event, internal, E}];
action({state_timeout, Ms, E}) -> [{state_timeout, Ms, E}];
action({event_timeout, Ms, E}) -> [{timeout, Ms, E}];
action({named_timeout, Name, Ms, E}) -> [{{timeout, Name}, Ms, E}].

log(Logger, Format, Args) -> Logger ! {log, io_lib:format(Format, Args)}.
